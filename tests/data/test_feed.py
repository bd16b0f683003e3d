"""Batches assembled ahead are those assembled in place, in order; errors come where their batch would."""

from __future__ import annotations

import threading
import time
from dataclasses import fields

import pytest
import torch
from stores import build, masker_of, texts

from distil.data.batch import Batcher, PackedBatch
from distil.data.feed import AHEAD, Feed
from distil.data.mixture import Mixture
from distil.errors import DataError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def batcher(tmp_path_factory) -> Batcher:
    mixture = Mixture([build(tmp_path_factory.mktemp("store") / "s", texts(200))], None, 64, 5)
    return Batcher(mixture, masker_of(mixture), 5)


def same(one: PackedBatch, other: PackedBatch) -> bool:
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(PackedBatch)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def test_ahead_or_in_place_is_the_same_to_the_bit(batcher):
    numbers = [*range(3, 60), 7, 7]
    with Feed(batcher.batch, numbers, CPU) as feed:
        fed = list(feed)
    assert len(fed) == len(numbers)
    assert all(same(batch, batcher.batch(number)) for batch, number in zip(fed, numbers, strict=True))


def test_work_goes_on_while_nobody_asks():
    made: list[int] = []
    full = threading.Event()

    def make(number: int) -> int:
        made.append(number)
        if len(made) == AHEAD:
            full.set()
        return number

    with Feed(make, range(1000), CPU) as feed:
        assert full.wait(30)
        assert made == list(range(AHEAD))  # and no farther: what is ready takes memory
        assert next(feed) == 0
        deadline = time.monotonic() + 30
        while len(made) < AHEAD + 1 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert made == list(range(AHEAD + 1))


def test_what_callers_wait_is_counted():
    release = threading.Event()

    def make(number: int) -> int:
        if number == 1:
            release.wait(30)
        return number

    with Feed(make, range(2), CPU) as feed:
        next(feed)
        before = feed.waited
        threading.Timer(0.2, release.set).start()
        next(feed)
        # The timer starts before the wait does and may fire late, never early.
        assert feed.waited - before > 0.15


def test_an_error_comes_where_its_batch_would():
    def make(number: int) -> int:
        if number == 3:
            raise DataError("id at byte 6 is 300")
        return number

    with Feed(make, range(10), CPU) as feed:
        assert [next(feed) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(DataError, match="byte 6"):
            next(feed)


def test_closing_ends_the_thread_and_drops_what_is_ready():
    names = {thread.name for thread in threading.enumerate()}
    feed = Feed(lambda number: number, range(10**9), CPU)
    next(feed)
    assert any(thread.name.startswith("feed") for thread in threading.enumerate() if thread.name not in names)
    feed.close()
    assert {thread.name for thread in threading.enumerate()} <= names


def test_no_numbers_no_batches():
    with Feed(lambda number: number, [], CPU) as feed:
        assert list(feed) == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_for_a_gpu_are_pinned_and_the_same(batcher):
    with Feed(batcher.batch, range(12), torch.device("cuda")) as feed:
        for number, batch in enumerate(feed):
            assert batch.input_ids_N.is_pinned() and batch.cu_seqlens_B1.is_pinned()
            assert same(batch.to(torch.device("cuda")).to(CPU), batcher.batch(number))
