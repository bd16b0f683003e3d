"""An ablation's runs, one after another: what is done stays done, what stops one stops all, what is written.

Runs are stood in for by ones that write their folders and results and train nothing; ``end_to_end/test_ablate.py`` has
the real ones.
"""

from __future__ import annotations

import pytest
import torch
from ablations import RECIPE, STEPS, Stand

from distil import made
from distil.config import Recipe
from distil.errors import ConfigError, DataError, Stopped
from distil.variants import AblationOptions

NAMES = ["full-seed7", "without-ce-seed7", "full-seed8", "without-ce-seed8"]
CE = "\u2205 - L_cos - L_mlm"


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


def rows_of(stand: Stand) -> dict[str, list[str]]:
    """{formula: cells} of the table in the folder."""
    lines = [line for line in stand.written().splitlines() if line.startswith("| ")][2:]
    return {cells[0]: cells[1:] for cells in ([c.strip() for c in line.strip("| ").split("|")] for line in lines)}


def test_more_seeds_and_parts_add_to_what_is_there(stand, capsys):
    stand.ablate("ce,init", seeds=2)
    larger = rows_of(stand)
    stand.ablate("ce", seeds=1)
    assert stand.trained == [f"{name}-seed{n}" for n in (7, 8) for name in ("full", "without-ce", "without-init")]
    assert rows_of(stand) == larger and "\u00b1" in larger[CE][0]
    stand.ablate("mlm", seeds=3)
    assert sorted(stand.trained[6:]) == ["full-seed9", *(f"without-mlm-seed{n}" for n in (7, 8, 9))]
    rows = rows_of(stand)
    assert list(rows)[1:] == ["L_ce - L_cos - \u2205", CE, "L_ce - L_cos - L_mlm + random initial weights"]
    assert {formula: rows[formula] for formula in list(larger)[1:]} == {f: larger[f] for f in list(larger)[1:]}
    assert [list(v["by_seed"]) for v in stand.numbers()["variants"]] == [["7", "8", "9"]] * 2 + [["7", "8"]] * 2
    said = f"over 3 seeds (7, 8, 9; of {CE}: 7, 8; of L_ce - L_cos - L_mlm + random initial weights: 7, 8)"
    assert said in stand.written() and said in capsys.readouterr().out
    assert stand.written().count("    launch/ablate.py --without ") == 3
    assert "- 10 of 10 runs, " in stand.written()


def test_runs_there_that_do_not_compare_are_left_out_in_a_line(stand, capsys):
    stand.ablate("cos", seeds=1)
    stand.step = STEPS - 5
    for seed in (7, 9):
        recipe = Recipe.load("distilbert-base-uncased", {"seed": seed, "alpha_mlm": 0.0})
        stand.run(AblationOptions(output_dir=str(stand.folder / f"without-mlm-seed{seed}")), recipe)
        stand.step = STEPS
    stand.ablate("ce", seeds=1)
    printed = capsys.readouterr().out
    assert f"not in the table: {stand.folder / 'without-mlm-seed7'}: it went to step 15, these to 20\n" in printed
    assert "without-mlm-seed9: the whole recipe has no run of seed 9\n" in printed
    assert len(rows_of(stand)) == 3


def test_what_is_written(stand):
    stand.ablate()
    text = stand.written()
    for part in (
        "| \u2205 - L_cos - L_mlm", "    launch/ablate.py --without ce\n", "20 steps a run, about 2,000 tokens",
        "99 held-out positions", "- 4 of 4 runs, ", "1 rank(s), fp32, ds.json",
        f"torch {torch.__version__}, DeepSpeed ", made.machine(torch.device("cpu")),
    ):  # fmt: skip
        assert part in text, part
    numbers = stand.numbers()
    assert numbers["variants"][1]["by_seed"]["8"]["accuracy"] == pytest.approx(0.38)
    assert numbers["recipe"]["optimizer"]["seed"] == 7 and list(numbers["made"]) == NAMES


def test_how_a_run_was_made_stays_with_it(stand, monkeypatch):
    stand.ablate(seeds=1)
    monkeypatch.setattr(made, "machine", lambda device: "another machine")
    stand.ablate(seeds=2)
    rows = [line for line in stand.written().splitlines() if line.startswith("- 2 of 4 runs, ")]
    assert [row.rpartition(": ")[2] for row in rows] == [f"full, seed {n}; without-ce, seed {n}" for n in (7, 8)]
    assert ["another machine" in row for row in rows] == [False, True]


def test_a_run_made_by_another_program_is_taken_and_said(stand):
    stand.run(AblationOptions(output_dir=str(stand.folder / NAMES[0])), RECIPE)
    stand.ablate()
    assert stand.trained == NAMES
    assert "- 1 of 4 runs: how and when they were made is not recorded: full, seed 7\n" in stand.written()


def test_what_is_compared_and_was_made_otherwise_is_told_before_and_after(stand, capsys):
    stand.ablate(seeds=2)
    assert "warning" not in capsys.readouterr().out + stand.written()
    stand.job["precision"] = "bf16"
    stand.ablate("ce,mlm", seeds=2)
    line = (
        "warning: runs that are compared are not made alike: without-mlm, seeds 7, 8: precision bf16 against fp32 of "
        "the whole recipe\n"
    )
    before, _, after = capsys.readouterr().out.partition("run 3 of 6")
    assert before.count(line) == after.count(line) == stand.written().count(line) == 1
    assert "- 2 of 6 runs, " in stand.written() and "fp32, ds.json" in stand.written()


def test_what_is_done_is_told_before_the_plan_of_the_rest(stand, capsys):
    stand.ablate(seeds=1)
    first = capsys.readouterr().out
    stand.job["precision"] = "bf16"
    stand.ablate(seeds=2)
    second = capsys.readouterr().out
    stand.ablate(seeds=2)
    third = capsys.readouterr().out
    assert [text.index(" runs are done in") < text.index("  the plan in") for text in (first, second)] == [True, True]
    assert "  0 of 2 runs are done" in first and "  2 of 4 runs are done" in second and "  4 of 4 runs are" in third
    # Of what is done no plan is told: it was made as it was made.
    assert first.count("the plan in fp32") == second.count("the plan in bf16") == 1
    assert "the plan" not in third and "a note" not in third


def test_a_plan_trains_nothing_and_says_what_it_comes_to(stand, capsys):
    stand.ablate(dry_run=True)
    assert stand.trained == [] and not stand.folder.exists()
    printed = capsys.readouterr().out
    assert all(f"{name}: " in printed for name in NAMES)
    assert "4 runs x 20 steps = 80 steps, about 8,000 tokens\n" in printed
    stand.ablate(seeds=1)
    capsys.readouterr()
    stand.ablate(dry_run=True)
    printed = capsys.readouterr().out
    assert "80 steps, about 8,000 tokens, to be made: 2\n" in printed
    assert f"{NAMES[1]}: {CE}; done\n" in printed and f"{NAMES[3]}: {CE}\n" in printed


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
    stand.job["heldout"] = ()
    with pytest.raises(ConfigError, match="--heldout_store"):
        stand.ablate()
    assert stand.trained == []


def test_damaged_numbers_are_named(stand):
    stand.folder.mkdir()
    (stand.folder / "ablation.json").write_text("{")
    with pytest.raises(DataError, match="ablation.json cannot be read"):
        stand.ablate()
    assert stand.trained == []


def test_runs_of_different_lengths_are_not_compared(stand):
    stand.ablate(seeds=1)
    stand.step = STEPS + 10
    with pytest.raises(ConfigError, match="full-seed8 went to step 30, .*full-seed7 to 20"):
        stand.ablate()


def test_a_shorter_run_beside_longer_ones_is_refused_before_it_is_made(stand):
    stand.ablate(seeds=1)
    stand.job["stop_step"] = 10
    with pytest.raises(ConfigError, match="went to step 20, the runs to come would stop at 10: .* --max_steps 20"):
        stand.ablate()
    assert stand.trained == NAMES[:2]


def test_runs_measured_on_other_text_are_not_compared(stand):
    stand.ablate(seeds=1)
    stand.predicted = 80
    with pytest.raises(ConfigError, match="full-seed8 was measured on 80 held-out positions, .*full-seed7 on 99"):
        stand.ablate()
