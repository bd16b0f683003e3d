"""doctor of two hosts: alike, unlike, and one of them down."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import harness
import pytest

from distil.doctor import network
from distil.doctor.finding import FAIL, OK

pytestmark = pytest.mark.multihost


OF_HOSTS = """
import shutil
import sys
from pathlib import Path
from distil.doctor import network
for finding in network.of_hosts(sys.argv[1], None, 29500, sys.argv[2]):
    print(finding)
"""


def findings(hosts, output) -> list[str]:
    """What doctor says of the hosts, asked on host one."""
    result = hosts.run(sys.executable, "-c", OF_HOSTS, hosts.hostfile, output)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_two_hosts_that_are_alike(hosts, tmp_path):
    doctor = [sys.executable, "launch/doctor.py", "--hostfile", hosts.hostfile, "--output_dir", tmp_path / "run"]
    result = hosts.run(*doctor)
    assert result.returncode == 0, result.stdout + result.stderr
    one, two, across = result.stdout.splitlines()[-3:]
    for line, name in ((one, "one"), (two, "two")):
        assert line.startswith(OK) and f"{name}: login, python" in line and f"{tmp_path}/run shared" in line
    assert across.startswith(OK) and f"2 hosts, meeting at tcp://{hosts.one.address}:29500, gloo" in across
    assert "GB/s" in across and not list(tmp_path.iterdir())


def test_other_code_and_another_folder_there(hosts, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "code.py").write_text("another = 1\n")
    code_there = hosts.two.seeing(tmp_path / "code.py", harness.ROOT / "distil" / "shares.py")
    with code_there, hosts.two.seeing(tmp_path / "other", tmp_path / "run"):
        one, differs, apart = findings(hosts, tmp_path / "run")
    assert one.startswith(OK)
    assert differs.startswith(FAIL) and "two: distil " in differs and str(network.ROOT) in differs
    assert apart.startswith(FAIL) and f"two: {tmp_path}/run is another folder there" in apart


def test_a_host_that_is_down_is_named(hosts, tmp_path):
    hosts.two.link("down")
    try:
        one, two = findings(hosts, tmp_path / "run")
    finally:
        hosts.two.link("up")
    assert one.startswith(OK) and two.startswith(FAIL) and "two: no login: ssh: connect" in two


def test_a_first_host_without_an_address(hosts, tmp_path):
    (tmp_path / "hostname").write_text("#!/bin/sh\n")
    (tmp_path / "hostname").chmod(0o755)
    with hosts.one.seeing(tmp_path / "hostname", Path(shutil.which("hostname"))):
        one, two, across = findings(hosts, tmp_path / "run")
    assert one.startswith(OK) and two.startswith(OK)
    assert across.startswith(FAIL) and "host one states no address" in across and "--master_addr" in across
