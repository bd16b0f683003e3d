"""Two hosts, for as long as this folder's tests run, and the tiny job for them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import harness
import netns
import pytest


@dataclass(frozen=True)
class Pair:
    """The two hosts and a folder that both see, with hostfile and environment file in it."""

    one: netns.Host
    two: netns.Host
    folder: Path

    @property
    def hostfile(self) -> Path:
        return self.folder / "hostfile"

    def start(self, *command: object, **how: object) -> subprocess.Popen[str]:
        """Start a program on host one as its user would from the repository's root."""
        environment = {"DS_ENV_FILE": str(self.folder / "environment"), "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            self.one.inside(command), cwd=harness.ROOT, env=harness.environment() | environment, text=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how,
        )  # fmt: skip

    def run(self, *command: object, timeout: float = 100) -> subprocess.CompletedProcess[str]:
        """Run a program on host one to its end."""
        process = self.start(*command)
        try:
            out, err = process.communicate(timeout=timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess(shlex.join(map(str, command)), process.returncode, out, err)

    def training(self, output: Path, recipe: Path, *more: object) -> list[object]:
        """The documented command, one rank on each host."""
        return [
            sys.executable, "launch/run.py", "--hostfile", self.hostfile, "--num_gpus", 1, "launch/pretrain.py",
            "--deepspeed", "ds_config/zero1.json", "--recipe", recipe, "--output_dir", output, *more,
        ]  # fmt: skip


@pytest.fixture(scope="session")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    if why := netns.missing():
        harness.cannot(why)
    folder = tmp_path_factory.mktemp("multihost")
    with netns.two_hosts() as (one, two):
        (folder / "hostfile").write_text(f"{one.name} slots=1\n{two.name} slots=1\n")
        (folder / "environment").write_text("GLOO_SOCKET_IFNAME=eth0\nHF_HUB_OFFLINE=1\nOMP_NUM_THREADS=1\n")
        yield Pair(one, two, folder)


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> harness.Material:
    return harness.make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture(scope="session")
def local(material: harness.Material, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that those on two hosts are held against: two ranks on this machine."""
    output = tmp_path_factory.mktemp("local") / "run"
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        harness.must_pretrain(2, "--recipe", material.recipe, "--output_dir", output, "--max_steps", 20)
    finally:
        del os.environ["OMP_NUM_THREADS"]
    return output
