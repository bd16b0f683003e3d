"""What slurm/common.sh makes of every way to end, by a real SLURM, of a program that only waits and leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jobs import Site

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

SCRIPT = """#!/usr/bin/env bash
#SBATCH --job-name=stopping --requeue --open-mode=append
set -euo pipefail
. slurm/common.sh
{how} python program.py "$@"
"""
# Its first argument says what each start does: leave with a code, or wait for the stop file and leave with 75.
PROGRAM = """
import json, os, sys, time
print("arguments", json.dumps(sys.argv[2:]), flush=True)
does = sys.argv[1].split()[int(os.environ.get("SLURM_RESTART_COUNT", "0"))]
while does == "wait" and not os.path.exists(os.environ.get("DISTIL_STOP_FILE", "")):
    time.sleep(0.1)
sys.exit(75 if does == "wait" else int(does))
"""
# how, what it does at each start, what is sent to it; then the state it ends in, its code and the times it restarted.
WAYS = {
    "wall time near": ("train", "wait 0", ["--batch", "--signal=USR1"], ("COMPLETED", "0:0", "1")),
    "its own clock": ("train", "75 75 0", None, ("COMPLETED", "0:0", "2")),
    "the user's file": ("train", "wait", "touch", ("FAILED", "75:0", "0")),
    "asked politely": ("train", "wait", ["--batch", "--signal=TERM"], ("FAILED", "75:0", "0")),
    "cancelled": ("train", "wait", [], ("CANCELLED", "0:0", "0")),
    "a failure": ("train", "70", None, ("FAILED", "70:0", "0")),
    "done": ("train", "0", None, ("COMPLETED", "0:0", "0")),
    "a build's wall time": ("build", "wait 0", ["--batch", "--signal=USR1"], ("COMPLETED", "0:0", "1")),
    "a build's failure": ("build", "65", None, ("FAILED", "65:0", "0")),
}
ODD = ["two words", "*", "$(false)", "a'b\"c", ""]


def test_every_way_to_end(site: Site, tmp_path: Path) -> None:
    cluster, folder = site.cluster, tmp_path / "a checkout"
    folder.mkdir()
    (folder / "slurm").symlink_to(site.checkout / "slurm")
    (folder / "program.py").write_text(PROGRAM)
    jobs = {}
    for way, (how, does, _, _) in WAYS.items():
        (folder / f"{how}.sh").write_text(SCRIPT.format(how=how))
        jobs[way] = site.submit(f"{how}.sh", ["--cpus-per-task=4"], [does, *ODD], tmp_path / way, folder=folder)
    for way, (_, _, sent, _) in WAYS.items():
        log = tmp_path / way
        cluster.until(lambda log=log: log.exists() and "arguments" in log.read_text(), f"{way} has started", 180)
        if sent == "touch":
            (folder / f"stopping-{jobs[way]}.stop").touch()
        elif sent is not None:
            cluster.run("scancel", *sent, jobs[way])
    for way, (_, _, _, end) in WAYS.items():
        job = cluster.ended(jobs[way], 180)
        log = (tmp_path / way).read_text()
        # Of a job that is cancelled SLURM may or may not note the code, as the script has ended or not.
        code = job["ExitCode"] if way != "cancelled" else "0:0"
        assert (job["JobState"], code, job["Restarts"]) == end, f"{way}\n{log}"
        said = [line for line in log.splitlines() if line.startswith("arguments ")]
        assert [json.loads(line.removeprefix("arguments ")) for line in said] == [ODD] * (int(end[2]) + 1), way
    cluster.until(lambda: not list(folder.glob("*.stop")), "all stop files are gone", 10)
