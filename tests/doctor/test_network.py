"""Ports, the all-reduce on this machine, and what is made of hosts' answers; real hosts are in tests/multihost."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys

import pytest

from distil import remote
from distil.doctor import network, there
from distil.doctor.finding import FAIL, OK, WARN


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        number = taken.getsockname()[1]
        assert network.port(number, needed=False).state == WARN
        finding = network.port(number, needed=True)
    assert finding.state == FAIL and str(number) in finding.found and "--master_port" in finding.remedy
    assert network.port(number, needed=True).state == OK


def test_the_all_reduce_of_this_machine():
    finding = network.all_reduce()
    assert finding.state == OK and "64 MiB in" in finding.found and "GB/s" in finding.found


def test_a_rank_that_breaks_is_told_in_the_line(monkeypatch):
    monkeypatch.setattr(network, "_rank", lambda *_: [sys.executable, "-c", "raise SystemExit('no such device')"])
    finding = network.all_reduce()
    assert finding.state == FAIL and "rank 0 on here: no such device (exit code 1)" in finding.found


HERE = there.report(str(network.ROOT), "/")


def said(began: float = 99.5, **changed: object) -> remote.Answer:
    told = json.dumps(HERE | {"time": 100.0} | changed)
    return remote.Answer("two", f"a banner\n{told}\n", began=began, ended=began + 1)


def test_hosts_that_are_alike():
    (finding,) = network._compared(said(), HERE, "runs")
    assert finding.state == OK and "clock +0.0 s, runs shared" in finding.found


@pytest.mark.parametrize("package", ["python", "torch", "deepspeed", "distil"])
def test_what_differs_is_named(package):
    versions = HERE["versions"] | {package: "0"}
    (finding,) = network._compared(said(versions=versions), HERE, None)
    assert finding.state == FAIL and finding.found == f"two: {package} 0 there, {HERE['versions'][package]} here"


def test_clocks_and_folders_apart():
    folder, clock = network._compared(said(began=90.0, seen=False), HERE, "runs")
    assert folder.state == FAIL and "two: runs is another folder there" in folder.found
    assert clock.state == WARN and "+9.5 s" in clock.found
    (slow,) = network._compared(remote.Answer("two", said().output, began=95.0, ended=99.0), HERE, None)
    assert slow.state == OK  # 3 s, of which half the way there and back may be 2


def test_no_python_there():
    (finding,) = network._compared(remote.Answer("two", "", "sh: python: not found", 127), HERE, None)
    assert finding.state == FAIL and "does not run there: sh: python: not found" in finding.found


def test_code_is_told_apart_and_missed(tmp_path):
    assert there.report(str(tmp_path), "/nowhere")["versions"]["distil"] == "missing"
    (tmp_path / "launch").mkdir()
    (tmp_path / "launch" / "a.py").write_text("1")
    first = there.report(str(tmp_path), "/")["versions"]["distil"]
    (tmp_path / "launch" / "a.py").write_text("2")
    assert first != there.report(str(tmp_path), "/")["versions"]["distil"] != "missing"


def test_a_hostile_hostfile_is_a_finding(tmp_path):
    (tmp_path / "h").write_text(f"-oProxyCommand=touch${{IFS}}{tmp_path}/marker slots=1\n")
    (finding,) = network.of_hosts(str(tmp_path / "h"), None, 29500, None)
    assert finding.state == FAIL and "line 1" in finding.found and not (tmp_path / "marker").exists()


@pytest.fixture
def hostfile(tmp_path):
    (tmp_path / "h").write_text("localhost slots=1\n")
    return str(tmp_path / "h")


def test_what_run_refuses_fails(hostfile, monkeypatch, tmp_path):
    monkeypatch.setenv("NCCL_X", "$(id)")
    (finding,) = network.of_hosts(hostfile, None, 29500, None)
    assert finding.state == FAIL and "NCCL_X" in finding.found
    monkeypatch.delenv("NCCL_X")
    monkeypatch.setenv("PATH", str(tmp_path))
    (finding,) = network.of_hosts(hostfile, None, 29500, None)
    assert finding.state == FAIL and "no pdsh" in finding.found


def test_a_folder_that_cannot_be_written_is_a_finding(hostfile):
    if not shutil.which("pdsh"):
        pytest.skip("no pdsh; apt-get install pdsh")
    (finding,) = network.of_hosts(hostfile, None, 29500, "/proc/runs")
    assert finding.state == FAIL and "/proc/runs: No such file" in finding.found


def test_a_rank_that_is_left_alone_says_so(tmp_path):
    program = "import sys; from distil.doctor import collective; collective.SECONDS = 1; collective.main()"
    command = [sys.executable, "-c", program, "0", "2", f"file://{tmp_path}/meet", "gloo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "still waits for the other ranks after 1 s"


@pytest.mark.parametrize("option", ["--master_port", "--ssh_port"])
def test_no_port_is_a_line(option):
    command = [sys.executable, "launch/doctor.py", option, "99999"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78 and done.stderr.startswith(f"error: {option} is 99999")
