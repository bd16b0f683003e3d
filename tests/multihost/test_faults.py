"""A job on two hosts that is ended, by whoever started it or by a wire that is pulled."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import harness
import pytest

pytestmark = [pytest.mark.multihost, pytest.mark.slow]
SECONDS_TO_END = 60


def wait_for(condition: Callable[[], object], seconds: float) -> bool:
    """Whether it came to hold within so many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def kill_what_runs(hosts) -> None:
    for host in (hosts.one, hosts.two):
        for process in host.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@contextlib.contextmanager
def job_in_the_middle(hosts, command, output, log) -> Iterator[subprocess.Popen[str]]:
    """A job that has saved its first checkpoint; whatever happens, nothing of it is left."""
    with log.open("w") as file:
        job = hosts.start(*command, stdout=file, stderr=file)
        try:
            saved = output / "checkpoints" / "step-00000005"
            wait_for(lambda: saved.exists() or job.poll() is not None, 90)
            assert saved.exists() and job.poll() is None, log.read_text()[-3000:]
            yield job
        finally:
            hosts.two.link("up")
            kill_what_runs(hosts)
            job.wait()


def must_end(hosts, job, log) -> None:
    """The job ends by itself, not well, and neither host keeps a process of it."""
    assert wait_for(lambda: job.poll() is not None, SECONDS_TO_END), log.read_text()[-3000:]
    assert job.returncode != 0
    gone = wait_for(lambda: not hosts.one.processes() and not hosts.two.processes(), SECONDS_TO_END)
    assert gone, (hosts.one.processes(), hosts.two.processes())


def test_a_cut_wire_ends_the_job_and_the_same_command_resumes(hosts, material, local, tmp_path, monkeypatch):
    monkeypatch.setenv("PDSH_SSH_ARGS_APPEND", "-oServerAliveInterval=5 -oServerAliveCountMax=2")
    output, log = tmp_path / "run", tmp_path / "log"
    command = hosts.training(output, material.recipe, "--max_steps", 20, "--silence_seconds", 10)
    with job_in_the_middle(hosts, command, output, log) as job:
        hosts.two.link("down")
        must_end(hosts, job, log)
    result = hosts.run(*command)
    assert result.returncode == 0 and "resuming from" in result.stdout, result.stdout[-3000:] + result.stderr[-3000:]
    assert harness.scalars(output, "loss/total") == harness.scalars(local, "loss/total")


def test_a_job_that_is_told_to_end_leaves_nobody_on_any_host(hosts, material, tmp_path):
    output, log = tmp_path / "run", tmp_path / "log"
    with job_in_the_middle(hosts, hosts.training(output, material.recipe), output, log) as job:
        job.terminate()
        must_end(hosts, job, log)
