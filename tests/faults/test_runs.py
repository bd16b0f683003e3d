"""Damage, foreign checkpoints, bad numbers, full disks: of each objective many runs of two ranks in one launch."""

from __future__ import annotations

import json
import os
import subprocess
from types import SimpleNamespace

import cases
import pytest
from harness import CLOCKED, ROOT, command, environment, must_pretrain, scalars, tags
from safetensors.torch import load_file

pytestmark = pytest.mark.faults
NAMES = [name for name, case in vars(cases).items() if getattr(case, "__annotations__", {}).get("return") == "Outcome"]


@pytest.fixture(scope="module", params=["mlm", "clm"])
def objective(request):
    return request.param


@pytest.fixture(scope="module")
def material(objective, materials):
    return materials(objective)


@pytest.fixture(scope="module")
def staged(material, tmp_path_factory):
    """The folder in which all cases have run, and how each ended."""
    work = tmp_path_factory.mktemp("stage")
    one = ("--recipe", material.recipe, "--output_dir", work / "one", "--precision", "fp32", "--max_steps", 10)
    must_pretrain(None, *one)
    line = command(2, work, material.recipe.parent, *NAMES, program="tests/faults/stage.py")
    result = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-3000:]
    found = json.loads((work / "outcomes.json").read_text())
    return work, {name: SimpleNamespace(**outcome) for name, outcome in found.items()}


def same_as_whole(work, name):
    """The run must be the undisturbed one to the last bit: every scalar, every exported tensor."""
    run, whole = work / name, work / "whole"
    for tag in tags(whole) - CLOCKED:
        assert scalars(run, tag) == scalars(whole, tag), tag
    ours, theirs = (load_file(folder / "student" / "model.safetensors") for folder in (run, whole))
    assert ours.keys() == theirs.keys() and all(ours[tensor].equal(theirs[tensor]) for tensor in ours)


def test_the_stage_itself(staged, objective):
    work, outcomes = staged
    assert {"loss/mlm", "loss/clm"} & tags(work / "whole") == {f"loss/{objective}"}
    assert set(outcomes) == set(NAMES) and len(NAMES) > 30
    assert outcomes["undisturbed"].code == 0
    same_as_whole(work, "undisturbed")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("latest_missing", "latest is missing; the newest checkpoint that verifies is step-00000010"),
        ("latest_empty", "latest names '', which is not there"),
        ("latest_names_nothing", "latest names '../../elsewhere', which is not there"),
    ],
)
def test_without_latest_the_newest_verified_is_taken(staged, name, said):
    work, outcomes = staged
    assert outcomes[name].code == 0 and said in outcomes[name].printed
    assert "step-00000010\n" in outcomes[name].printed.split("resuming from")[1]
    same_as_whole(work, name)


def test_latest_without_any_checkpoint_never_means_step_0(staged):
    work, outcomes = staged
    outcome = outcomes["latest_alone"]
    assert outcome.code == 65 and "latest names 'step-00000010'" in outcome.message
    assert "begin again from step 0" in outcome.message
    assert not list((work / "latest_alone" / "checkpoints").glob("*step*"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bit_flipped", "rank-00001.safetensors: its hash differs from the manifest's"),
        ("bit_flipped_in_the_manifest", "manifest.json: "),
        ("shard_missing", "rank-00001.safetensors: cannot be read (No such file or directory)"),
        ("shard_short", "bytes, "),
        ("poisoned", "rank-00001.safetensors: no tensors as we write them"),
    ],
)
def test_damage_is_named_and_all_ranks_go_back_together(staged, name, said):
    work, outcomes = staged
    outcome = outcomes[name]
    assert outcome.code == 0, outcome.message
    assert "checkpoint damaged: " in outcome.printed and said in outcome.printed
    assert "step-00000005\n" in outcome.printed.split("resuming from")[1]
    assert (work / name / "checkpoints" / "damaged-step-00000010").is_dir(), "kept, under a name nobody takes"
    same_as_whole(work, name)


@pytest.mark.parametrize("name", ["all_damaged", "poisoned_all"])
def test_nothing_left_is_refused(staged, name):
    _, outcomes = staged
    assert outcomes[name].code == 65 and "no checkpoint in" in outcomes[name].message


def test_no_poison_ran(staged):
    assert not (staged[0] / "poison-ran").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("another_recipe", "loss.temperature: 2.0 there, 4.0 here; optimizer.lr: 0.002 there, 0.001 here"),
        ("another_store", "store: ["),
        ("anothers_checkpoints", "step-00000010 is of another run (optimizer.lr: 0.002 there, 0.001 here)"),
    ],
)
def test_another_experiment_is_refused_with_the_difference(staged, name, said):
    work, outcomes = staged
    assert outcomes[name].code == 78 and said in outcomes[name].message
    for folder in ("checkpoints", "tensorboard"):
        before = {path.name: path.stat().st_size for path in (work / "broken" / folder).rglob("*")}
        assert {path.name: path.stat().st_size for path in (work / name / folder).rglob("*")} == before


@pytest.mark.parametrize("placed", ["_".join(place) for place in cases.EVERYWHERE])
def test_resume_is_bitwise_in_every_placement(staged, objective, placed):
    work, outcomes = staged
    assert outcomes[f"parts_{placed}"].code == 0, outcomes[f"parts_{placed}"].message
    assert "step-00000003\n" in outcomes[f"parts_{placed}"].printed.split("resuming from")[1]
    parts, whole = work / f"parts_{placed}", work / f"parts_{placed}_whole"
    # Where it stopped it evaluated once more than a run that goes on.
    evaluated = {f"heldout/{name}" for name in (f"{objective}_accuracy", "perplexity", "agreement", "teacher_accuracy")}
    assert evaluated <= tags(whole) == tags(parts)
    for tag in tags(whole) - CLOCKED - evaluated:
        assert scalars(parts, tag) == scalars(whole, tag), tag
    ours, theirs = (load_file(run / "student" / "model.safetensors") for run in (parts, whole))
    assert all(ours[tensor].equal(theirs[tensor]) for tensor in theirs)


# --- other ranks, other placements ---------------------------------------------------------------------------------


def close_to_whole(run, whole):
    """Same samples to the bit; losses apart by rounding: sums in another order, at most ten steps of them."""
    fraction = next(
        tag for tag in tags(whole) if tag.startswith("data/") and tag.endswith("ed_fraction")
    )  # by objective
    for tag in ("data/tokens", fraction, "data/epoch", "optimizer/lr"):
        assert scalars(run, tag) == scalars(whole, tag), tag
    theirs = scalars(whole, "loss/total")
    assert scalars(run, "loss/total") == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize("name", ["from_one_rank", "under_zero0", "under_zero2", "under_zero3", "under_zero3_from_one"])
def test_other_ranks_and_stages_go_on(staged, name):
    work, outcomes = staged
    assert outcomes[name].code == 0, outcomes[name].message
    assert "it was written by " in outcomes[name].printed
    close_to_whole(work / name, work / "whole")


def test_two_ranks_become_one_by_the_same_command(staged, material):
    work, _ = staged
    options = ("--recipe", material.recipe, "--output_dir", work / "for_one_rank", "--precision", "fp32")
    printed = must_pretrain(None, *options, "--max_steps", 15)
    assert "it was written by 2 rank(s) under ZeRO-1 in fp32" in printed
    close_to_whole(work / "for_one_rank", work / "whole")


# --- numbers -------------------------------------------------------------------------------------------------------


def finite(run):
    """The newest checkpoint holds no NaN."""
    files = sorted(max((run / "checkpoints").glob("step-*")).glob("*.safetensors"))
    assert len(files) == 2
    values = [value for file in files for value in load_file(file).values()]
    return all(value.isfinite().all() for value in values if value.is_floating_point())


@pytest.mark.parametrize("placed", ["_".join(place) for place in cases.PLACEMENTS])
def test_one_bad_step_is_left_out_and_counted(staged, placed):
    work, outcomes = staged
    outcome = outcomes[f"nan_once_{placed}"]
    assert outcome.code == 0, outcome.message
    assert "step 3 is left out: loss term ce is nan, cos is nan (bad steps so far: 1)" in outcome.printed
    assert scalars(work / f"nan_once_{placed}", "health/bad_steps") == {s: float(s >= 3) for s in range(1, 9)}
    assert finite(work / f"nan_once_{placed}")


@pytest.mark.parametrize("placed", ["_".join(place) for place in cases.PLACEMENTS])
def test_nan_for_good_stops_and_names_the_term(staged, placed):
    work, outcomes = staged
    outcome = outcomes[f"nan_for_good_{placed}"]
    assert outcome.code == 70
    assert outcome.message.startswith("3 bad steps in a row, the last one step 8: loss term ce is nan")
    assert finite(work / f"nan_for_good_{placed}")


def test_nan_of_the_student_names_the_objectives_term(staged, objective):
    work, outcomes = staged
    assert outcomes["nan_of_student"].code == 70
    assert f"step 8: loss term ce is nan, {objective} is nan, cos is nan;" in outcomes["nan_of_student"].message
    assert finite(work / "nan_of_student")


def test_infinite_gradients(staged):
    _, outcomes = staged
    for name in ("scale_collapses", "scale_collapses_without_zero"):
        assert outcomes[name].code == 70 and "the loss scale has collapsed to 1 at step " in outcomes[name].message
    for_good = outcomes["gradients_infinite"]
    assert for_good.code == 70
    assert "10 bad steps in a row, the last one step 15: its gradients are no finite" in for_good.message


# --- disks ---------------------------------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@needs_root
def test_a_full_disk_while_saving(staged):
    work, outcomes = staged
    outcome = outcomes["disk_full"]
    assert outcome.code == 70, outcome.printed
    assert "checkpoint of step 15 cannot be written" in outcome.message and "it needs " in outcome.message
    assert int(outcome.message.split("it needs ")[1].split(" bytes")[0].replace(",", "")) > 12 * 20_000
    assert outcome.facts["left"] == ["latest", "step-00000005", "step-00000010"], "whole, and no draft fills the disk"
    assert outcomes["disk_freed"].code == 0
    same_as_whole(work, "disk_full")


@needs_root
def test_no_room_for_curves_ends_no_run(staged):
    work, outcomes = staged
    outcome = outcomes["curves_unwritable"]
    assert outcome.code == 0, outcome.message
    assert outcome.printed.count("TensorBoard's files cannot be written") == 1
    ours, theirs = (load_file(work / run / "student" / "model.safetensors") for run in ("curves_unwritable", "whole"))
    assert all(ours[name].equal(theirs[name]) for name in ours)


@needs_root
def test_an_export_is_whole_or_absent(staged):
    work, outcomes = staged
    assert outcomes["export_unwritable"].code == 70
    assert "the student cannot be exported to" in outcomes["export_unwritable"].message
    assert outcomes["export_unwritable"].facts["left"] == []
    assert outcomes["export_again"].code == 0
    same_as_whole(work, "export_unwritable")
