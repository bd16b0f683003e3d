"""The folder of an ablation: nothing of a user's is written over, and another ablation gets a folder of its own."""

from __future__ import annotations

import json

import pytest
from ablations import RECIPE, Stand

from distil import ablation
from distil.config import Recipe
from distil.errors import ConfigError, DataError
from distil.members import MARK, members_there, refuse_strangers
from distil.variants import parse

LONGER = Recipe.load("distilbert-base-uncased", {"seed": 7, "steps": 9})


@pytest.fixture
def stand(tmp_path, monkeypatch):
    return Stand(tmp_path / "out", monkeypatch)


def refused(stand: Stand, *said: str) -> None:
    """The ablation must be refused in one line, with every file left as it was."""
    before = {path: path.read_bytes() for path in stand.folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as caught:
        stand.ablate()
    for text in (*said, "give another --output_dir"):
        assert text in str(caught.value)
    assert "\n" not in str(caught.value) and stand.trained == []
    assert {path: path.read_bytes() for path in stand.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ablation.md", "# Ablation of my garden\n"),
        ("ablation.json", '{"mine": 1}'),
        ("ablation.json", '{"made": {"2026": "by me"}}'),
        ("ablation.json", "[]"),
        ("notes.txt", "mine"),
        (".hidden", "mine"),
        ("full-seed7", "a file"),
        ("figures/one.svg", "mine"),
        ("full-seed7/thesis.tex", "mine"),
    ],
)
def test_a_folder_of_a_users_own_is_refused_and_left_alone(stand, name, text):
    path = stand.folder / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    refused(stand, str(stand.folder), name.partition("/")[0])


def test_a_users_table_beside_our_numbers_is_refused(stand):
    stand.ablate()
    (stand.folder / "ablation.md").write_text("mine\n")
    stand.trained = []
    refused(stand, "ablation.md is not of our making", "move it away")


def test_what_an_ablation_leaves_and_tensorboard_may_be_there(stand):
    stand.ablate(seeds=1)
    assert stand.numbers()["kind"] == "ablation by distil" and MARK in stand.written()
    for name in ("stop", ".lock", ".ablation.md", ".ablation.json", "events.out.tfevents.17.host"):
        (stand.folder / name).touch()
    for name in ("tensorboard", "by_hand"):
        (stand.folder / name).mkdir()
    (stand.folder / "tensorboard" / "events.out.tfevents.17.host").touch()
    (stand.folder / "by_hand" / "run.json").write_text("{}")  # a run, though no member
    stand.ablate(seeds=2)
    assert len(stand.trained) == 4


@pytest.mark.parametrize("there", [True, False])
def test_an_empty_or_a_new_folder_is_fine(tmp_path, there):
    if there:
        (tmp_path / "out").mkdir()
    refuse_strangers(tmp_path / "out")


def test_numbers_of_ours_that_are_damaged_are_named(stand):
    stand.ablate()
    (stand.folder / "ablation.json").write_text(json.dumps(stand.numbers() | {"made": {"full-seed7": 3}}))
    with pytest.raises(DataError, match="ablation.json cannot be read .* move it away"):
        stand.ablate()


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_file_is_refused_on_the_command_line(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=f"output directory .*{name} cannot be: .*file is a file; give another"):
        parse(["--output_dir", str(tmp_path / name)], "d")


def test_members_are_found_by_their_names(tmp_path):
    names = ("without-init-seed7", "full-seed10", "full-seed9", "without-ce+cos-seed9", "without-cos-seed7")
    for name in (*names, "full-seed07", "without-cos+ce-seed9", "without-mse-seed7", "full", "other-seed7"):
        (tmp_path / name).mkdir()
    assert [one.folder.name for one in members_there(tmp_path, RECIPE)] == [
        "full-seed9", "full-seed10", "without-cos-seed7", "without-init-seed7", "without-ce+cos-seed9"
    ]  # fmt: skip
    assert members_there(tmp_path / "nowhere", RECIPE) == []


# --- another ablation ----------------------------------------------------------------------------------------------


def test_by_default_another_budget_takes_the_next_free_name(stand, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablation, "RUNS", tmp_path / "runs")
    first, second, third = (tmp_path / "runs" / f"ablation-{RECIPE.name}{n}" for n in ("", "-2", "-3"))
    stand.ablate(seeds=1, output_dir=None)
    before = sorted(first.iterdir())
    second.mkdir()
    (second / "thesis.tex").touch()  # a user's
    stand.ablate(seeds=1, recipe=LONGER, output_dir=None)
    assert sorted(first.iterdir()) == before
    assert sorted(path.name for path in third.iterdir()) == [path.name for path in before]
    assert f"0 of 2 runs are done in {third}\n" in capsys.readouterr().out
    for recipe, folder in ((RECIPE, first), (LONGER, third)):
        stand.ablate(seeds=2, recipe=recipe, output_dir=None)  # goes on where the same recipe is
        assert f"2 of 4 runs are done in {folder}\n" in capsys.readouterr().out


def test_in_a_folder_that_was_asked_for_it_is_refused(stand):
    stand.ablate(seeds=1)
    with pytest.raises(
        ConfigError, match="full-seed7 holds another run .optimizer.steps: 0 there, 9 here.*--output_dir"
    ):
        stand.ablate(recipe=LONGER)
    moved = Recipe.load("distilbert-base-uncased", {"seed": 9, "steps": 9})
    with pytest.raises(ConfigError, match="full-seed7 holds another run"):  # though no run of it would lie there
        stand.ablate(recipe=moved)
    assert len(stand.trained) == 2
