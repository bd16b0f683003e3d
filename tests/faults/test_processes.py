"""Signals, killed and stopped processes, faults inside a rank: a real run of two ranks meets them one by one.

The run of a masked model meets all of them, that of a causal model those with ``clm`` in their names.
"""

from __future__ import annotations

import os
import signal
import time

import pytest
from harness import CLOCKED, Started, command, must_pretrain, pretrain, scalars, tags
from history import (
    SAVE_EVERY,
    SILENCE,
    STEPS,
    arguments,
    live,
    newest,
    saved_at,
    to_all_ranks,
    to_its_child,
    to_launcher,
    to_rank,
)
from safetensors.torch import load_file

pytestmark = pytest.mark.faults


both = pytest.mark.parametrize("objective", ["mlm", "clm"])


@pytest.fixture
def objective():
    return "mlm"


@pytest.fixture
def material(materials, objective):
    return materials(objective)


@pytest.fixture(scope="module")
def histories(tmp_path_factory):
    return tmp_path_factory.mktemp("histories")


@pytest.fixture
def out(histories, objective):
    """The folder of the objective's one run, with which every test of this module goes on."""
    return histories / objective


@pytest.fixture
def options(material, out, objective):
    """Those of every life of it."""
    return arguments(material, out, STEPS[objective])


@pytest.fixture
def live_on(options, out, tmp_path, measured):
    def go_on(fault=None, **how):
        life = live(options, out, tmp_path / "log", fault, **how)
        measured(f"{life.code:>4} {life.seconds:6.1f} s   step {life.newest_before} to {life.newest_after}")
        return life

    return go_on


@both
def test_usr1_saves_and_asks_to_be_started_again(live_on):
    life = live_on(to_all_ranks(signal.SIGUSR1))
    assert life.code == 75 and life.seconds < 20, life.output
    assert saved_at(life) == life.newest_after
    assert "stopped: SIGUSR1 received; saved at step" in life.output


def test_one_rank_is_told_and_all_stop(live_on):
    life = live_on(to_rank(1, signal.SIGTERM))
    assert life.code == 75 and saved_at(life) == life.newest_after, life.output


def test_a_stop_file(live_on, out):
    life = live_on(lambda run: (out / "stop").touch())
    assert life.code == 75 and saved_at(life) == life.newest_after, life.output
    assert not (out / "stop").exists(), "the next start would stop at once"


@both
def test_a_rank_is_killed(live_on):
    life = live_on(to_rank(1, signal.SIGKILL), seconds=30)
    assert life.code not in (0, 75)
    assert "error: rank 1 (host " in life.output and "Traceback" not in life.output, life.output


def test_rank_0_is_killed(live_on):
    life = live_on(to_rank(0, signal.SIGKILL), seconds=30)
    assert life.code not in (0, 75)
    assert "error: rank 0 (host " in life.output or "error: rank 1: rank 0 has gone" in life.output, life.output
    assert "Traceback" not in life.output and "frame #" not in life.output


def test_a_rank_hangs_as_a_stopped_process(live_on):
    # After the heartbeat has spoken, the launcher grants the stopped rank 30 s to end by itself.
    life = live_on(to_rank(1, signal.SIGSTOP), seconds=SILENCE + 45)
    assert life.code == 70, life.output
    assert "rank 1 (host " in life.output and f"has been silent for {SILENCE} s" in life.output


def test_a_rank_hangs_alive(live_on):
    life = live_on(spoilt=("hang", 1, 8))
    assert life.code == 70, life.output
    assert "no micro-batch has ended for" in life.output and "rank 1 at " in life.output
    assert "rank 0 at" not in life.output, "rank 0 only waits, in a collective"


def test_a_job_that_is_suspended_goes_on_when_it_is_woken(live_on):
    """As SLURM suspends it, or a laptop's lid: longer than the silence that ends a job, and nobody is blamed."""

    def suspend(run: Started) -> None:
        to_all_ranks(signal.SIGSTOP)(run)
        time.sleep(SILENCE + 5)
        to_all_ranks(signal.SIGCONT)(run)
        time.sleep(3)
        to_all_ranks(signal.SIGUSR1)(run)

    life = live_on(suspend)
    assert life.code == 75 and saved_at(life) == life.newest_after, life.output


def test_the_hours_are_over(options):
    result = pretrain(None, *options, "--max_hours", "1e-6")
    assert result.returncode == 75, result.stderr
    assert "stopped: --max_hours 1e-06 are over; there was nothing to save" in result.stdout


def test_a_rank_raises(live_on):
    life = live_on(spoilt=("raise", 1, 8))
    assert life.code == 70
    errors = [line for line in life.output.splitlines() if line.startswith("error: ")]
    assert errors[0] == "error: rank 1: ZeroDivisionError: an injected fault", life.output
    assert all("rank 1 failed first: ZeroDivisionError" in line for line in errors[1:]), errors


@pytest.mark.parametrize(
    ("objective", "whom", "number"),
    [
        ("mlm", to_launcher, signal.SIGTERM),
        ("mlm", to_launcher, signal.SIGKILL),
        ("mlm", to_its_child, signal.SIGTERM),
        ("mlm", to_its_child, signal.SIGKILL),
        ("clm", to_launcher, signal.SIGKILL),
    ],
)
def test_the_launcher_is_killed(live_on, whom, number):
    life = live_on(whom(number), seconds=40)
    assert life.code != 0, life.output
    assert saved_at(life) == life.newest_after, "the ranks save before they go"


@pytest.mark.parametrize(("objective", "rank"), [("mlm", "0"), ("mlm", "1"), ("mlm", "all"), ("clm", "1")])
def test_killed_in_the_middle_of_a_save(live_on, rank):
    life = live_on(spoilt=("die writing", rank, 12))
    assert life.code not in (0, 75)
    assert life.newest_before < life.newest_after < life.newest_before + 12 + SAVE_EVERY
    assert any(name.endswith(".draft") for name in life.left), "half a checkpoint is there, and none takes it for one"


def test_killed_before_a_save_is_published(live_on):
    life = live_on(spoilt=("die before rename", "0", 12))
    assert life.code not in (0, 75) and any(name.endswith(".draft") for name in life.left), life.output


def test_a_second_job_in_the_same_folder_is_refused(material, tmp_path):
    long = arguments(material, tmp_path / "run", 100_000)
    with Started(command(2, *long), tmp_path / "log") as run:
        run.wait_for(lambda: newest(tmp_path / "run") > 0)
        second = pretrain(None, *long)
        assert second.returncode == 78, second.stderr
        holder = run.ranks()[0].pid
        assert f"is in use by process {holder} on " in second.stderr and second.stderr.count("\n") == 1
        os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does, to all of them
        run.gone_within(40)
        assert run.process.returncode != 0
        assert "interrupted; saved at step" in run.log.read_text()


@both
def test_and_in_the_end_it_is_the_run_that_nothing_happened_to(material, out, options, objective, tmp_path):
    assert "resuming from" in must_pretrain(2, *options)
    must_pretrain(2, *arguments(material, tmp_path / "whole", STEPS[objective]))
    assert {"loss/mlm", "loss/clm"} & tags(out) == {f"loss/{objective}"}
    for tag in tags(out) - CLOCKED:
        assert scalars(out, tag) == scalars(tmp_path / "whole", tag), tag
    ours, theirs = (load_file(run / "student" / "model.safetensors") for run in (out, tmp_path / "whole"))
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
    assert newest(out) == STEPS[objective]
