"""Which rank failed first, as the others learn it."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch.distributed as dist

from distil.engine import ranks as module
from distil.engine.ranks import FAULT, Ranks
from distil.errors import DataError, LostRank


def of(rank: int, store: dist.Store) -> Ranks:
    return Ranks(rank, 2, SimpleNamespace(type="cpu"), store)


@pytest.fixture
def store():
    """A store as ranks have it: it holds what they say, and compares and sets."""
    return dist.TCPStore("127.0.0.1", 0, 1, is_master=True, wait_for_workers=False)


def test_the_first_to_fail_is_the_cause_and_its_code_is_kept(store):
    assert of(1, store).cause_of(DataError("id 7 is too large")) is None
    later = of(0, store).cause_of(ValueError("what came of it"))
    assert isinstance(later, LostRank) and later.code == 65
    assert str(later) == "rank 1 failed first: DataError: id 7 is too large"
    assert json.loads(store.get(FAULT).decode())[0] == 1


def test_a_broken_connection_is_no_cause(store):
    of(1, store).cause_of(ZeroDivisionError("the fault"))
    lost = of(0, store).cause_of(RuntimeError("[gloo/pair.cc:534] Connection closed by peer [127.0.0.1]:1"))
    assert isinstance(lost, LostRank) and "rank 1 failed first: ZeroDivisionError: the fault" in str(lost)


def test_a_closed_pipe_of_our_own_is_no_lost_rank(store):
    assert of(0, store).cause_of(BrokenPipeError(32, "Broken pipe")) is None


def test_a_rank_that_went_without_a_word(store, monkeypatch):
    monkeypatch.setattr(module, "SECONDS_TO_NAME", 0)
    lost = of(0, store).cause_of(RuntimeError("Connection reset by peer"))
    assert isinstance(lost, LostRank) and "without a word" in str(lost) and lost.code == 70
