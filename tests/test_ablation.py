"""An ablation's runs, one after another: what is done stays done, what stops one stops all, what is written.

Runs are stood in for by ones that write their folders and results and train nothing; ``end_to_end/test_ablate.py`` has
the real ones.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distil import ablation
from distil.config import Recipe
from distil.errors import ConfigError, DataError, Stopped
from distil.results import Results, Row
from distil.variants import AblationOptions, variants

RECIPE = Recipe.load("distilbert-base-uncased", {"seed": 7})
NAMES = ["full-seed7", "without-ce-seed7", "full-seed8", "without-ce-seed8"]
STEPS = 20


@dataclass(frozen=True)
class FakeJob:
    recipe: Recipe
    heldout: tuple[str, ...] = ("text",)
    stop_step: int = STEPS
    micro_batches: int = 4
    mixture: Any = field(default_factory=lambda: SimpleNamespace(micro_batches=40, tokens_an_epoch=1000.0))
    placement: Any = field(default_factory=lambda: SimpleNamespace(precision="fp32", path="ds.json"))

    def identity(self) -> dict[str, Any]:
        return {"mathematics": self.recipe.mathematics()}


class OneRank:
    first, world, device = True, 1, torch.device("cpu")

    def first_does(self, work: Callable[[], Any]) -> Any:
        return work()


class FakeGuard:
    def pass_on(self, ranks: OneRank) -> None:
        pass


class Stand:
    """A folder, the runs that have been asked for in it, and how many may end before a stop is asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.trained, self.allowed, self.step = folder, [], 100, STEPS
        self.heldout: tuple[str, ...] = ("text",)
        together = lambda *how: contextlib.nullcontext((OneRank(), FakeGuard()))
        monkeypatch.setattr(ablation, "together", together)
        monkeypatch.setattr(ablation, "settled", lambda options, recipe, *_: FakeJob(recipe, self.heldout))
        monkeypatch.setattr(ablation, "run", self.run)

    def run(self, options: AblationOptions, recipe: Recipe, *others: object) -> Results:
        if len(self.trained) == self.allowed:
            raise Stopped("asked")
        folder = Path(options.output_dir)
        self.trained.append(folder.name)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(FakeJob(recipe).identity()))
        accuracy = 0.4 + 0.01 * (recipe.optimizer.seed - 7) - (0.03 if recipe.loss.alpha_ce == 0 else 0)
        results = Results(self.step, 99, (Row("student after", accuracy, 10.0, 0.5, 1, 1.0),))
        results.write(folder)
        return results

    def ablate(self, without: str | None = "ce", seeds: int = 2, recipe: Recipe = RECIPE, **more: Any) -> None:
        options = AblationOptions(output_dir=str(self.folder), without=without, seeds=seeds, **more)
        ablation.ablate(options, variants(recipe, without), None, "launch/ablate.py --without ce")


@pytest.fixture
def stand(tmp_path, monkeypatch):
    return Stand(tmp_path / "out", monkeypatch)


def test_every_variant_with_every_seed_in_folders_of_their_own(stand, capsys):
    stand.ablate()
    assert stand.trained == NAMES  # by seeds first, so that a first table is there early
    printed = capsys.readouterr().out
    assert "run 4 of 4: \u2205 - L_cos - L_mlm, seed 8" in printed
    assert "-3.00 \u00b1 0.00" in printed and "40.50 \u00b1 0.71" in printed


def test_what_stops_a_run_stops_all_and_the_same_command_goes_on(stand, capsys):
    stand.allowed = 2
    with pytest.raises(Stopped):
        stand.ablate()
    assert not (stand.folder / "ablation.md").exists()
    stand.allowed = 100
    stand.ablate()
    assert stand.trained == NAMES
    first = capsys.readouterr().out.partition("| trained with")[2]
    stand.ablate()
    assert stand.trained == NAMES and "run 1 of" not in (again := capsys.readouterr().out)
    assert again.partition("| trained with")[2] == first != ""


def test_more_seeds_and_parts_add_to_what_is_there(stand):
    stand.ablate(seeds=1)
    stand.ablate("ce,cos+mlm", seeds=2)
    assert stand.trained[:2] == NAMES[:2] and sorted(stand.trained[2:]) == [
        "full-seed8", "without-ce-seed8", "without-cos+mlm-seed7", "without-cos+mlm-seed8"
    ]  # fmt: skip


def test_what_is_written(stand):
    stand.ablate()
    text = (stand.folder / "ablation.md").read_text(encoding="utf-8")
    for part in (
        "| \u2205 - L_cos - L_mlm", "    launch/ablate.py --without ce\n", "20 steps a run, about 2,000 tokens",
        "99 held-out positions", "- 4 of 4 runs, ", "1 rank(s), fp32, ds.json",
        f"torch {torch.__version__}, DeepSpeed ", ablation.machine(torch.device("cpu")),
    ):  # fmt: skip
        assert part in text, part
    numbers = json.loads((stand.folder / "ablation.json").read_text())
    assert numbers["variants"][1]["by_seed"]["8"]["accuracy"] == pytest.approx(0.38)
    assert numbers["recipe"]["optimizer"]["seed"] == 7 and list(numbers["made"]) == NAMES


def test_how_a_run_was_made_stays_with_it(stand, monkeypatch):
    stand.ablate(seeds=1)
    monkeypatch.setattr(ablation, "machine", lambda device: "another machine")
    stand.ablate(seeds=2)
    text = (stand.folder / "ablation.md").read_text(encoding="utf-8")
    assert text.count("- 2 of 4 runs, ") == 2 and text.count("another machine") == 1


def test_a_run_made_by_another_program_is_taken_and_said(stand):
    stand.run(AblationOptions(output_dir=str(stand.folder / NAMES[0])), RECIPE)
    stand.ablate()
    assert stand.trained == NAMES
    assert "- 1 of 4 runs: how and when they were made is not recorded" in (stand.folder / "ablation.md").read_text(
        encoding="utf-8"
    )


def test_a_plan_trains_nothing(stand, capsys):
    stand.ablate(dry_run=True)
    assert stand.trained == [] and not stand.folder.exists()
    assert all(name in capsys.readouterr().out for name in NAMES[:1])


def test_what_is_not_left_out_by_default_is_told_and_the_rest_is(stand, capsys):
    stand.ablate(None, seeds=1, recipe=Recipe.load("distilbert-base-uncased", {"seed": 7, "kd_until": 0.6}))
    assert stand.trained == ["full-seed7", "without-ce-seed7", "without-cos-seed7", "without-init-seed7"]
    lines = [line for line in capsys.readouterr().out.splitlines() if "mlm is not left out: kd_until is 0.6" in line]
    assert len(lines) == 1 and "--kd_until 1" in lines[0]


# --- refused before anything is trained ----------------------------------------------------------------------------


def test_another_recipe_in_the_folder_is_refused(stand):
    stand.ablate(seeds=1)
    other = Recipe.load("distilbert-base-uncased", {"seed": 7, "lr": 1.0})
    with pytest.raises(ConfigError, match="full-seed7 holds another run .optimizer.lr: 0.0005 there, 1.0 here"):
        stand.ablate(recipe=other)
    assert stand.trained == NAMES[:2]


def test_a_folder_of_something_else_among_the_last_is_refused_first(stand):
    (stand.folder / NAMES[-1]).mkdir(parents=True)
    (stand.folder / NAMES[-1] / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="holds no run of ours"):
        stand.ablate()
    assert stand.trained == []


def test_the_folder_of_a_single_run_is_refused(stand):
    stand.folder.mkdir()
    (stand.folder / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="is that of a single run"):
        stand.ablate()


def test_without_held_out_text_nothing_can_be_compared(stand):
    stand.heldout = ()
    with pytest.raises(ConfigError, match="--heldout_store"):
        stand.ablate()
    assert stand.trained == []


@pytest.mark.parametrize("text", ["{", "[]", '{"made": 3}'])
def test_damaged_numbers_are_named(stand, text):
    stand.folder.mkdir()
    (stand.folder / "ablation.json").write_text(text)
    with pytest.raises(DataError, match="ablation.json cannot be read"):
        stand.ablate()
    assert stand.trained == []


def test_runs_of_different_lengths_are_not_compared(stand):
    stand.ablate(seeds=1)
    stand.step = STEPS + 10
    with pytest.raises(ConfigError, match="full-seed8 went to step 30, .*full-seed7 to 20"):
        stand.ablate()
