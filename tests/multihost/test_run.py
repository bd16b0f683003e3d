"""The door to several hosts: what must not run does not, and a host that is down is named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import harness
import pytest


def run(*arguments: object, program: tuple[str, ...] = ("launch/run.py",), **environment: str):
    """A door on this machine, with both hosts named where nothing else is."""
    command = [sys.executable, *program, *map(str, arguments)]
    environment = harness.environment() | environment
    return subprocess.run(command, cwd=harness.ROOT, env=environment, capture_output=True, text=True, timeout=100)


@pytest.fixture
def marker(tmp_path):
    """A file that appears where hostile input has run."""
    if absent := [program for program in ("ssh", "pdsh") if not shutil.which(program)]:
        harness.cannot(f"no {' and no '.join(absent)}; apt-get install openssh-client pdsh")
    (tmp_path / "hosts").write_text("localhost slots=1\n127.0.0.1 slots=1\n")
    (tmp_path / "program.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')\n")
    return tmp_path / "marker"


DEEPSPEED = ("-m", "deepspeed.launcher.runner")


def evil_hostfile(marker):
    (marker.parent / "evil").write_text(f"-oProxyCommand=touch${{IFS}}{marker} slots=1\n")
    return marker.parent / "evil"


def test_deepspeed_alone_runs_what_a_hostfile_says(marker):
    run("--hostfile", evil_hostfile(marker), marker.parent / "nothing.py", program=DEEPSPEED)
    assert marker.exists()


def test_a_hostile_hostfile_runs_nothing(marker):
    result = run("--hostfile", evil_hostfile(marker), marker.parent / "program.py")
    assert result.returncode == 78 and result.stderr.count("\n") == 1, result.stderr
    assert "/evil, line 1: '-oProxyCommand=" in result.stderr and not marker.exists()


@pytest.mark.multihost
def test_deepspeed_alone_runs_what_an_environment_file_says(hosts, marker):
    (marker.parent / "environment").write_text(f"X=$(touch {marker})\n")
    command = [sys.executable, *DEEPSPEED, "--hostfile", hosts.hostfile, "--no_python", "/bin/true"]
    hosts.run("env", f"DS_ENV_FILE={marker.parent}/environment", *command)
    assert marker.exists()


@pytest.mark.parametrize("where", ["environment file", "environment", "argument", "program", "folder"])
def test_hostile_words_run_nothing(marker, where):
    hostile, more, program = f"$(touch {marker})".replace(" ", "${IFS}"), {}, marker.parent / "program.py"
    (marker.parent / "environment").write_text(f"A=1\nX={hostile}\n" if where == "environment file" else "")
    more["DS_ENV_FILE"] = str(marker.parent / "environment")
    if where == "environment":
        more["NCCL_X"] = hostile
    if where == "program":
        program = hostile
    arguments = ["--hostfile", marker.parent / "hosts", program, *([hostile] if where == "argument" else [])]
    if where == "folder":
        (marker.parent / "$(touch marker)").mkdir()
        command = [sys.executable, harness.ROOT / "launch" / "run.py", *arguments]
        path = {"PYTHONPATH": str(harness.ROOT)}
        result = subprocess.run(
            command, cwd=marker.parent / "$(touch marker)", env=os.environ | more | path, capture_output=True, text=True
        )
    else:
        result = run(*arguments, **more)
    assert result.returncode == 78 and result.stderr.count("\n") == 1, result.stderr
    assert result.stderr.startswith("error: ") and not marker.exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--master_addr", "$(id)"), ("--master_addr=-oX",), ("--include", "a@$(id)"), ("--exclude", "-oX=y"),
        ("--launcher_args", "-R exec"), ("--launcher_args", "-w evil"), ("--launcher_args", "-l root"),
        ("--ssh_port", "0"), ("--ssh_port", "22;id"), ("--master_port", "99999"), ("--launcher", "openmpi"),
        ("--venv_script", "x;id"), ("--hostf", "evil"), ("--hostfile", "nowhere"),
    ],
)  # fmt: skip
def test_hostile_options_are_refused_in_a_line(marker, options):
    result = run("--hostfile", marker.parent / "hosts", *options, marker.parent / "program.py")
    assert result.returncode == 78 and result.stderr.count("\n") == 1, result.stderr
    assert options[0].split("=")[0] in result.stderr or options[1] in result.stderr
    assert not marker.exists()


def test_without_a_hostfile_it_is_deepspeed(marker):
    result = run("--num_gpus", 1, marker.parent / "program.py", "$(a) b")
    assert result.returncode == 0, result.stderr
    assert marker.exists()


@pytest.mark.multihost
@pytest.mark.parametrize("how", ["no sshd", "no wire"])
def test_a_host_that_is_down_is_named(hosts, marker, how):
    try:
        hosts.two.stop_sshd() if how == "no sshd" else hosts.two.link("down")
        began = time.monotonic()
        result = hosts.run(sys.executable, "launch/run.py", "--hostfile", hosts.hostfile, marker.parent / "program.py")
        seconds = time.monotonic() - began
    finally:
        hosts.two.start_sshd() if how == "no sshd" else hosts.two.link("up")
    assert result.returncode == 70 and result.stderr.count("\n") == 1, result.stderr
    assert "1 of 2 hosts do not answer over ssh (two: " in result.stderr and "--exclude two" in result.stderr
    assert seconds < 60 and not marker.exists()


@pytest.mark.multihost
@pytest.mark.parametrize("stated", ["$(touch MARKER)", "-oProxyCommand=x", ""])
def test_what_the_first_host_says_of_itself_runs_nothing(hosts, marker, stated):
    """DeepSpeed takes the first word of `hostname -I` there for the address to meet at, and tells it to every shell."""
    hostname = marker.parent / "hostname"
    hostname.write_text(f"#!/bin/sh\nprintf '%s\\n' '{stated.replace('MARKER', str(marker)).replace(' ', '${IFS}')}'\n")
    hostname.chmod(0o755)
    with hosts.one.seeing(hostname, Path(shutil.which("hostname"))):
        result = hosts.run(sys.executable, "launch/run.py", "--hostfile", hosts.hostfile, marker.parent / "program.py")
    assert result.returncode == 70 and result.stderr.count("\n") == 1, result.stderr
    assert "host one states no address" in result.stderr and "--master_addr" in result.stderr
    assert not marker.exists()
