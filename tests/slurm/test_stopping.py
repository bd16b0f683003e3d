"""What slurm/common.sh makes of every way to end, by a real SLURM, of a program that only waits and leaves."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from harness import ROOT
from jobs import Site

SCRIPT = """#!/usr/bin/env bash
#SBATCH --job-name=stopping --requeue --open-mode=append
#SBATCH --signal=B:USR1@600
set -euo pipefail
. slurm/common.sh
{how} python program.py "$@"
"""
# Its first argument says what each start does: wait for the stop file and leave with 75, or leave at once, with a code;
# "step" in front is a checkpoint before that, "slowly" a while between the stop file and the end.
PROGRAM = """
import json, os, sys, time
print("arguments", json.dumps(sys.argv[4:]), flush=True)
start = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
*before, last = sys.argv[3].split(",")[start].split()
if "step" in before:
    os.makedirs(f"{sys.argv[2]}/checkpoints/step-{start:08d}")
while last == "wait" and not os.path.exists(os.environ.get("DISTIL_STOP_FILE", "")):
    time.sleep(0.1)
time.sleep(3 if "slowly" in before else 0)
sys.exit(75 if last == "wait" else int(last))
"""
USR1, TERM = ["--batch", "--signal=USR1"], ["--batch", "--signal=TERM"]
GOES_ON, FAILED = ("COMPLETED", "0:0", "1"), ("FAILED", "75:0", "0")


@dataclass(frozen=True)
class Way:
    """``how`` a program is started and what it ``does`` at each start; what is ``sent`` to it, in turn; its ``end``.

    The end is the state, the exit code and the number of restarts; ``runs`` is how often the program ran, where that is
    not once more than the restarts.
    """

    how: str
    does: str
    sent: tuple[list[str] | str, ...]
    end: tuple[str, str, str]
    runs: int | None = None
    options: tuple[str, ...] = ()


WAYS = {
    "wall time near": Way("train", "step wait,0", (USR1,), GOES_ON),
    "wall time over": Way("train", "step slowly wait,0", (USR1, TERM), GOES_ON),
    "wall time near, no step": Way("train", "wait,0", (USR1,), FAILED),
    "its own clock": Way("train", "step 75,step 75,0", (), ("COMPLETED", "0:0", "2")),
    "its own clock, no step": Way("train", "75,75,0", (), FAILED),
    "no wall time at all": Way("train", "step 75", (), ("FAILED", "78:0", "0"), 0, ("--time=12",)),
    "a build's too": Way("build", "0", (), ("FAILED", "78:0", "0"), 0, ("--time=12",)),
    "the user's file": Way("train", "step wait", ("touch",), FAILED),
    "the user's file, wall time near": Way("train", "step slowly wait", ("touch", USR1), FAILED),
    "the user's file while it is queued": Way("train", "step 75", (), FAILED, 0, ("--hold",)),
    "our own file, left behind": Way("train", "0", (), ("COMPLETED", "0:0", "0"), 1, ("--hold",)),
    "asked politely": Way("train", "step wait", (TERM,), FAILED),
    "asked before it began": Way("kill -USR1 $$; train", "step 75", (), FAILED, 0),
    "cancelled": Way("train", "wait", ([],), ("CANCELLED", "0:0", "0")),
    "a failure": Way("train", "step 70", (), ("FAILED", "70:0", "0")),
    "done": Way("train", "0", (), ("COMPLETED", "0:0", "0")),
    "in a container, without a .venv": Way("container=(env X=1); train", "0", (), ("COMPLETED", "0:0", "0")),
    "a build's wall time": Way("build", "wait,0", (USR1,), GOES_ON),
    "a build's failure": Way("build", "65", (), ("FAILED", "65:0", "0")),
}
ODD = ["two words", "*", "$(false)", "a'b\"c", ""]


def checkout(site: Site, folder: Path) -> Path:
    """A folder to submit from, with the program in it."""
    folder.mkdir()
    (folder / "slurm").symlink_to(site.checkout / "slurm")
    (folder / "program.py").write_text(PROGRAM)
    return folder


@pytest.mark.slurm
@pytest.mark.slow
def test_every_way_to_end(site: Site, tmp_path: Path) -> None:
    cluster, folder, jobs, files = site.cluster, checkout(site, tmp_path / "a checkout"), {}, {}
    for number, (name, way) in enumerate(WAYS.items()):
        (folder / f"{number}.sh").write_text(SCRIPT.format(how=way.how))
        arguments = ["--output_dir", folder / f"run {number}", way.does, *ODD]
        options = ["--cpus-per-task=4", f"--job-name=a/{number}", *way.options]
        jobs[name] = site.submit(f"{number}.sh", options, arguments, tmp_path / name, folder=folder)
        files[name] = folder / f"a_{number}-{jobs[name]}.stop"
        if "--hold" in way.options:
            files[name].write_text("" if "user" in name else "job\n")
            cluster.run("scontrol", "release", jobs[name])
    for name, way in WAYS.items():
        log = tmp_path / name
        for sent in way.sent:
            cluster.until(lambda log=log: log.exists() and "arguments" in log.read_text(), f"{name} has started", 180)
            if sent == "touch":
                files[name].touch()
            else:
                cluster.run("scancel", *sent, jobs[name])
    for name, way in WAYS.items():
        job = cluster.ended(jobs[name], 180)
        log = (tmp_path / name).read_text()
        # Of a job that is cancelled SLURM may or may not note the code, as the script has ended or not.
        code = job["ExitCode"] if name != "cancelled" else "0:0"
        assert (job["JobState"], code, job["Restarts"]) == way.end, f"{name}\n{log}"
        said = [line for line in log.splitlines() if line.startswith("arguments ")]
        runs = int(way.end[2]) + 1 if way.runs is None else way.runs
        assert [json.loads(line.removeprefix("arguments ")) for line in said] == [ODD] * runs, f"{name}\n{log}"
        assert way.how != "train" or not runs or f"touch {files[name]}" in log, f"{name}\n{log}"
    cluster.until(lambda: not list(folder.glob("*.stop")), "all stop files are gone", 10)


@pytest.mark.slurm
@pytest.mark.slow
def test_the_venv_comes_first_and_the_repository_is_known(site: Site, tmp_path: Path) -> None:
    folder = checkout(site, tmp_path / "checkout")
    (folder / "distil.py").touch()
    (folder / "other").mkdir()
    (folder / "other" / "program.py").write_text("import distil\nprint('found', distil.__file__)\n")
    stub = folder / ".venv" / "bin" / "python"
    stub.parent.mkdir(parents=True)
    stub.write_text('#!/bin/sh\necho the python of .venv, X is $X\nexec python3 -S "$@"\n')
    stub.chmod(0o755)
    how = 'container=(env X=1); PATH="/usr/bin:$PATH"; train python other/program.py #'
    (folder / "job.sh").write_text(SCRIPT.format(how=how))
    job = site.submit("job.sh", ["--cpus-per-task=4"], [], tmp_path / "log", folder=folder)
    assert site.cluster.ended(job, 60)["JobState"] == "COMPLETED", (tmp_path / "log").read_text()
    log = (tmp_path / "log").read_text()
    assert "the python of .venv, X is 1" in log and f"found {folder}/distil.py" in log


@pytest.mark.parametrize("script", sorted((ROOT / "slurm").glob("[!c]*.sh")), ids=lambda path: path.name)
def test_what_a_site_changes_is_where_slurm_reads_it(script: Path) -> None:
    """SLURM ignores what stands below the first command, where a site's partition would not count."""
    lines = script.read_text().splitlines()
    command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    block = lines[lines.index("# ---- end of site-specific lines ----", 0, command) - 1 :: -1]
    block = block[: next(i for i, line in enumerate(block) if line.startswith("# ---- site-specific"))]
    stated = {line.split("--")[1].split("=")[0] for line in block if line.startswith(("#SBATCH --", "##SBATCH --"))}
    assert {"cpus-per-task", "time", "partition", "account"} <= stated
    assert not any(line.startswith("#SBATCH") for line in lines[command:])
