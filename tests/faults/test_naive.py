"""The faults bite: a plain DeepSpeed loop, which these tests pass through the same ones, breaks what ours keeps."""

from __future__ import annotations

import json
import math
import subprocess
from types import SimpleNamespace

import naive
import pytest
from harness import ROOT, command, environment

pytestmark = pytest.mark.faults
PROGRAM = "tests/faults/naive.py"


def start(*arguments):
    line = command(2, *arguments, program=PROGRAM)
    return subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    """The folder of all runs, the figures of each, and how the launch ended in which rank 1 died."""
    work = tmp_path_factory.mktemp("naive")
    ended = start("spoil", work)
    assert (work / "figures.json").exists(), ended.stdout[-2000:] + ended.stderr[-3000:]
    runs = json.loads((work / "figures.json").read_text())
    return work, {name: SimpleNamespace(**run) for name, run in runs.items()}, ended


def after_fault(run):
    """Losses of the steps that follow the fault."""
    return {int(step): loss for step, loss in run.losses.items() if int(step) > naive.BEFORE_FAULT}


def same(run, whole):
    ours, theirs = after_fault(run), after_fault(whole)
    return ours == theirs and len(theirs) == naive.LAST - naive.BEFORE_FAULT


def test_undisturbed_the_naive_loop_resumes_to_the_bit(spoilt):
    """So whatever differs below is the fault's doing."""
    _, runs, _ = spoilt
    assert runs["whole"].began == 0 and runs["broken"].began == 0
    assert runs["undisturbed"].began == naive.BEFORE_FAULT
    assert same(runs["undisturbed"], runs["whole"])


def test_without_latest_it_silently_begins_at_step_0(spoilt):
    work, runs, ended = spoilt
    assert (work / "latest_missing" / f"global_step{naive.BEFORE_FAULT}").is_dir(), "ten steps of work are there"
    assert runs["latest_missing"].began == 0, "and it trained them again, with exit code 0"
    assert "latest_missing begins at step 0" in ended.stdout


def test_a_flipped_bit_is_loaded_and_trained_on(spoilt):
    _, runs, ended = spoilt
    assert runs["bit_flipped"].began == naive.BEFORE_FAULT, "it loaded"
    losses = after_fault(runs["bit_flipped"])
    assert len(losses) == naive.LAST - naive.BEFORE_FAULT, "it trained to the end"
    assert not same(runs["bit_flipped"], runs["whole"])
    last, whole = losses[naive.LAST], after_fault(runs["whole"])[naive.LAST]
    assert not math.isfinite(last) or abs(last - whole) > 0.01 * whole, "and what it learned is spoilt"


def test_killed_in_the_middle_of_a_save_it_never_starts_again(spoilt):
    work, _, ended = spoilt
    assert ended.returncode != 0, "rank 1 was killed"
    assert (work / "cut" / "latest").read_text() == "global_step15", "which rank 0 had declared whole by then"
    assert (work / "cut" / "global_step10").is_dir(), "a whole one is there, and nobody takes it"
    again = start("train", work / "cut", naive.LAST)
    assert again.returncode != 0 and "cut ends" not in again.stdout
    assert "[rank1]" in again.stderr and "in load_checkpoint" in again.stderr, again.stderr[-3000:]
    assert "cut begins at step 15" in again.stdout, "rank 0 has loaded: the ranks disagree"
