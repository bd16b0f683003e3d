"""How ranks meet, and what is said where they cannot."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest
import torch.distributed as dist
from harness import ROOT, environment

from distil.engine import meeting as module
from distil.engine.meeting import INTERFACE, _await_all, _reach, choose_interface
from distil.errors import RunError


@pytest.fixture
def listening():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_that_is_taken_is_named_with_another(listening, tmp_path):
    """As rank 0 of two meets it; DeepSpeed's launcher gives every job 29500 unless it is told otherwise."""
    of_rank = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    began = time.monotonic()
    result = subprocess.run(
        [sys.executable, "launch/pretrain.py", "--output_dir", tmp_path / "run"], cwd=ROOT, capture_output=True,
        text=True, timeout=120, env=environment() | of_rank | {"MASTER_PORT": str(listening)},
    )  # fmt: skip
    assert result.returncode == 70, result.stderr
    assert result.stderr.startswith(f"error: port {listening} of 127.0.0.1 is taken; give another: deepspeed --master_")
    assert result.stderr.count("\n") == 1 and not (tmp_path / "run").exists()
    assert time.monotonic() - began < 60


def test_a_host_that_does_not_answer_is_named_within_the_minute(monkeypatch):
    monkeypatch.setattr(module, "REACH_SECONDS", 1)
    with pytest.raises(RunError, match=r"rank 0: cannot be reached at no-such-host\.invalid:1 .*see --master_addr"):
        _reach("no-such-host.invalid", 1)
    assert module.REACH_SECONDS == 1


def test_a_host_on_which_nobody_listens_yet_is_waited_for(listening, monkeypatch):
    _reach("127.0.0.1", listening)
    monkeypatch.setattr(module, "MEET_SECONDS", 1)
    monkeypatch.setattr(module, "REACH_SECONDS", 0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(RunError, match="nobody listens on 127.0.0.1:"):
            _reach("127.0.0.1", closed.getsockname()[1])


def test_ranks_that_do_not_come_are_named(monkeypatch):
    store = dist.HashStore()
    store.set("here/0", "h")
    store.set("here/2", "h")
    monkeypatch.setattr(module, "MEET_SECONDS", 0.2)
    with pytest.raises(RunError, match=r"of 4 ranks 2 have not come in 0 s: 1, 3"):
        _await_all(store, 4)


def test_gloo_is_told_the_interface_that_leads_to_rank_0(monkeypatch):
    monkeypatch.delenv(INTERFACE, raising=False)
    choose_interface("127.0.0.1")
    assert os.environ.pop(INTERFACE) == "lo"
    monkeypatch.setenv(INTERFACE, "ib0")
    choose_interface("127.0.0.1")
    assert os.environ[INTERFACE] == "ib0"
    monkeypatch.delenv(INTERFACE)
    choose_interface("no-such-host.invalid")
    assert INTERFACE not in os.environ
