"""Turns, percentiles and throughput; no test depends on how fast the machine is."""

from __future__ import annotations

import pytest
import torch

from distil.evaluation import speed
from distil.evaluation.examples import Example, batches
from distil.evaluation.speed import FOR_THROUGHPUT, LEAST_BATCHES, Latency, take_turns, throughput

EXAMPLES = [Example((i,) * (1 + i % 5)) for i in range(10)]


class Recorder:
    """Runners that note who ran which batch."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, list[int]]] = []

    def runner(self, name: str):
        def run(inputs):
            self.ran.append((name, inputs["input_ids"][:, 0].tolist()))
            return inputs["input_ids"]

        return run


def test_each_does_its_whole_work_in_order_by_turns():
    recorder, seen = Recorder(), []
    work = {name: batches(EXAMPLES, 1, 0) for name in "ab"}
    runners = {name: recorder.runner(name) for name in "ab"}
    seconds = take_turns(
        runners,
        work,
        rounds=3,
        warm_up=2,
        watch=lambda name, inputs, output: seen.append((name, inputs["input_ids"][0, 0].item())),
    )
    turns = [[0, 1, 2, 3], [4, 5, 6], [7, 8, 9]]
    # Forwards, backwards, forwards; each turn begins with its first sequence, twice, which is not timed.
    order = [("a", 0), ("b", 0), ("b", 1), ("a", 1), ("a", 2), ("b", 2)]
    assert seen == [(name, i) for name, turn in order for i in turns[turn]]
    assert recorder.ran == [(name, [i]) for name, turn in order for i in [turns[turn][0]] * 2 + turns[turn]]
    assert {name: len(found) for name, found in seconds.items()} == {"a": 10, "b": 10}
    assert all(s > 0 for found in seconds.values() for s in found)


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved on."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(speed.time, "perf_counter", lambda: Clock.now)
    return Clock


def test_seconds_are_of_the_batch_in_its_place(clock):
    """Each batch takes as many seconds as its id says, of which "b" takes twice as many; warming up is not counted."""

    def runner(factor: float):
        def run(inputs):
            clock.now += factor * inputs["input_ids"][0, 0].item()
            return inputs["input_ids"]

        return run

    def watch(name, inputs, output):
        clock.now += 1000

    work = {name: batches(EXAMPLES, 1, 0) for name in "ab"}
    seconds = take_turns({"a": runner(1), "b": runner(2)}, work, rounds=4, watch=watch)
    assert seconds == {"a": [*range(10)], "b": [*range(0, 20, 2)]}


@pytest.mark.parametrize(("size", "rate"), [(1, 1), (32, 32), (64, 64), (200, 200)])
def test_throughput_is_sequences_over_seconds(clock, size, rate):
    def run(inputs):
        clock.now += 1  # a batch takes a second
        return inputs["input_ids"]

    assert throughput({"a": run}, {"a": (EXAMPLES, 0)}, [size]) == {"a": {size: rate}}


def test_more_rounds_than_batches_are_as_many_as_there_are():
    recorder = Recorder()
    take_turns({"a": recorder.runner("a")}, {"a": batches(EXAMPLES[:2], 1, 0)}, rounds=10, warm_up=0)
    assert recorder.ran == [("a", [0]), ("a", [1])]


def test_percentiles_of_known_times():
    found = Latency.of([i / 1000 for i in range(1, 102)])  # 1 to 101 ms: between ranks nothing is to interpolate
    assert found.seconds == pytest.approx(sum(range(1, 102)) / 1000)
    assert (found.p50, found.p90, found.p99) == pytest.approx((51, 91, 100))
    assert Latency.of([0.25]) == Latency(0.25, 250, 250, 250)


@pytest.mark.parametrize("size", [1, 4, 64, 200])
def test_throughput_is_of_as_many_sequences_at_any_size(size):
    recorder = Recorder()
    found = throughput({"a": recorder.runner("a")}, {"a": (EXAMPLES, 0)}, [size])
    assert found["a"].keys() == {size} and found["a"][size] > 0
    timed = recorder.ran[:]
    del timed[0], timed[len(timed) // 2]  # each of the two rounds begins with one that is not timed
    assert {len(ids) for _, ids in timed} == {size} and len(timed) == max(LEAST_BATCHES, FOR_THROUGHPUT // size)
    count = max(size, FOR_THROUGHPUT)
    wanted = sorted((EXAMPLES * 20)[:count], key=lambda example: len(example.ids))
    times = len(timed) * size // count
    assert sum((ids for _, ids in timed), []) == [example.ids[0] for example in wanted] * times


def test_batches_for_throughput_are_of_neighbours_by_length():
    lengths = []

    def run(inputs):
        lengths.append(inputs["attention_mask"].sum(1).tolist())
        return torch.zeros(1)

    throughput({"a": run}, {"a": (EXAMPLES, 0)}, [8])
    timed = lengths[1:9] + lengths[10:]  # each of the two rounds begins with one that is not timed
    assert sum(timed, []) == sorted(sum(timed, [])) and len(timed) == FOR_THROUGHPUT // 8
