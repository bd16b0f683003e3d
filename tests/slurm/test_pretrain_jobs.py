"""The batch scripts of training, submitted to a real SLURM: a job that is interrupted makes the same run to the bit."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import CLOCKED, scalars, tags
from jobs import STEPS, Site
from safetensors.torch import load_file

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SCRIPT = "slurm/pretrain_8xv100.sh"
TWO_RANKS = {"RANKS_PER_NODE": "2"}


def assert_same(run: Path, whole: Path, steps: int) -> None:
    """The run's curves are those of the uninterrupted one bit by bit, and so is the student, where it went as far."""
    for tag in tags(whole) - CLOCKED:
        curve = scalars(whole, tag)
        assert scalars(run, tag) == {step: curve[step] for step in curve if step <= steps}, tag
    if steps == STEPS:
        ours, theirs = (load_file(folder / "student" / "model.safetensors") for folder in (run, whole))
        assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)


def newest(run: Path) -> int:
    """Step of the newest checkpoint that is whole, 0 without one."""
    steps = [int(folder.name.removeprefix("step-")) for folder in (run / "checkpoints").glob("step-*")]
    return max(steps, default=0)


@contextlib.contextmanager
def held(run: Path) -> Iterator[None]:
    """Let no rank of a run make a step meanwhile, so that a fast machine does not get to the end."""
    ranks = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            line = process.cmdline()
            if str(run) in line and any(word.startswith("--local_rank") for word in line):
                process.suspend()
                ranks.append(process)
    try:
        yield
    finally:
        for rank in ranks:
            with contextlib.suppress(psutil.Error):
                rank.resume()
    assert ranks


def test_wall_time_requeues_itself_until_done(site: Site, tmp_path: Path) -> None:
    cluster, run, log = site.cluster, tmp_path / "run", tmp_path / "log"
    submitted = (SCRIPT, ["--time=60"], site.arguments(run, save_every=1), log)
    job = site.submit(*submitted, **TWO_RANKS)
    cluster.until(lambda: newest(run) >= 3, "there is a checkpoint", 180)
    # Nearer than the ten minutes before which the script asks to be told; the controller looks every 30 s.
    with held(run):
        cluster.run("scontrol", "update", f"jobid={job}", "timelimit=6")
        cluster.until(lambda: list(site.checkout.glob("*.stop")), "the wall time is told", 50)
    cluster.until(lambda: cluster.job(job)["Restarts"] == "1", "the job has requeued itself", 120)
    stopped = newest(run)
    assert 3 <= stopped < STEPS
    cluster.run("scontrol", "update", f"jobid={job}", "timelimit=60")
    ended = cluster.ended(job, 300)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("COMPLETED", "0:0", "1")
    text = log.read_text()  # one log of both starts
    assert f"job {job}: start 1 on n1: python" in text and f"job {job}: start 2 on n1: python" in text
    assert text.count(f"resuming from {run}/checkpoints/step-{stopped:08d}") == 1
    assert text.count("goes on by itself: requeued") == 1
    assert not list(site.checkout.glob("*.stop"))
    assert_same(run, site.whole, STEPS)

    again = cluster.ended(site.submit(*submitted, **TWO_RANKS), 180)
    assert (again["JobState"], again["ExitCode"], again["Restarts"]) == ("COMPLETED", "0:0", "0")
    assert "already done" in log.read_text().removeprefix(text)


def test_cancelled_requeued_and_robbed_of_its_node(site: Site, tmp_path: Path) -> None:
    cluster, run, log = site.cluster, tmp_path / "run", tmp_path / "log"
    # Of checkpoints by the number of steps there are none: the one that is there afterwards was saved by scancel.
    job = site.submit(SCRIPT, [], site.arguments(run, save_every=10 * STEPS), log, **TWO_RANKS)
    cluster.until(lambda: list((run / "tensorboard").glob("events*")), "it trains", 180)
    time.sleep(3)  # some steps, on a slow machine as on one that makes thirty a second
    cluster.run("scancel", job)
    ended = cluster.ended(job, 60)
    assert (ended["JobState"], ended["Restarts"]) == ("CANCELLED", "0")
    assert 1 <= newest(run) < STEPS, log.read_text()
    assert "resuming from" not in log.read_text() and not list(site.checkout.glob("*.stop"))

    submitted = (SCRIPT, [], site.arguments(run), log)
    job = site.submit(*submitted, **TWO_RANKS)
    at = newest(run)
    cluster.until(lambda: newest(run) >= at + 10, "it has gone on", 180)
    assert f"resuming from {run}/checkpoints/step-{at:08d}" in log.read_text()
    cluster.run("scontrol", "requeue", job)
    cluster.until(lambda: cluster.job(job)["Restarts"] == "1", "it is requeued", 60)
    cluster.until(lambda: cluster.job(job)["JobState"] == "RUNNING", "it runs again", 180)

    at = newest(run)
    cluster.until(lambda: newest(run) >= at + 10, "it has gone on", 180)
    lost = cluster.job(job)["NodeList"]
    cluster.run("scontrol", "update", f"nodename={lost}", "state=down", "reason=test")
    ended = cluster.ended(job, 300)
    cluster.run("scontrol", "update", f"nodename={lost}", "state=resume")
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("COMPLETED", "0:0", "2")
    assert ended["NodeList"] != lost
    assert log.read_text().count("resuming from") == 3
    assert_same(run, site.whole, STEPS)


def test_two_nodes_are_two_ranks(site: Site, tmp_path: Path) -> None:
    cluster, run, log = site.cluster, tmp_path / "run", tmp_path / "log"
    # Both nodes are this machine, whatever they are called.
    settings = {"RANKS_PER_NODE": "1", "FIRST_NODE_ADDRESS": "127.0.0.1"}
    job = site.submit("slurm/pretrain_multinode.sh", ["--nodes=2"], site.arguments(run, steps=200), log, **settings)
    cluster.until(lambda: newest(run) >= 10, "there is a checkpoint", 180)
    cluster.run("scancel", "--batch", "--signal=USR1", job)  # as near the wall time
    ended = cluster.ended(job, 300)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("COMPLETED", "0:0", "1"), log.read_text()
    assert ended["NodeList"] == "n[1-2]" and log.read_text().count("resuming from") == 1
    assert_same(run, site.whole, 200)
