"""The plan: every sequence once an epoch, within the budget, any micro-batch by its number alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.data.lengths import Lengths
from distil.data.sampler import STREAMS, WINDOWS_KEPT, Plan, generator
from distil.errors import DataError

ROOT = Path(__file__).parents[2]
# Lengths as in the text of the quickstart: log-normal about 70 tokens, cut at 128 (a sixth of them).
SUMMARIES = np.clip(np.random.default_rng(0).lognormal(np.log(70), 0.6, 10_000), 5, 128).astype(int)


def lengths_of(sizes: np.ndarray | list[int], times: int = 1) -> Lengths:
    values, counts = np.unique(sizes, return_counts=True)
    return Lengths.of(zip(values, counts * times, strict=True))


def plan_of(sizes: np.ndarray | list[int], budget: int, seed: int = 1, stream: int = 0) -> Plan:
    return Plan(lengths_of(sizes), budget, seed, stream)


def epoch(plan: Plan, number: int) -> list[list[int]]:
    return [plan.places(number * plan.micro_batches + k).tolist() for k in range(plan.micro_batches)]


@st.composite
def stores(draw):
    sizes = draw(st.lists(st.integers(1, 64), min_size=1, max_size=300))
    return sizes, draw(st.integers(max(sizes), 400))


@settings(max_examples=80, deadline=None)
@given(store=stores(), seed=st.integers(0, 2**31), number=st.integers(0, 10**6))
def test_every_sequence_once_and_never_beyond_the_budget(store, seed, number):
    sizes, budget = store
    plan, ordered = plan_of(sizes, budget, seed), sorted(sizes)
    found = epoch(plan, number)
    assert sorted(i for batch in found for i in batch) == list(range(len(sizes)))
    assert all(found)  # no micro-batch is empty
    tokens = [sum(ordered[i] for i in batch) for batch in found]
    first = number * plan.micro_batches
    assert tokens == [plan.tokens(first + k) for k in range(plan.micro_batches)] and max(tokens) <= budget
    assert plan.filling == pytest.approx(sum(sizes) / (plan.micro_batches * budget), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(store=stores(), seed=st.integers(0, 2**31), data=st.data())
def test_a_micro_batch_is_computed_without_the_ones_before_it(store, seed, data):
    sizes, budget = store
    in_order = plan_of(sizes, budget, seed)
    wanted = {number: in_order.places(number).tolist() for number in range(3 * in_order.micro_batches)}
    numbers = data.draw(st.permutations(sorted(wanted)))
    fresh = plan_of(sizes, budget, seed)  # as a resumed run, another rank or a worker has it
    for number in numbers[:20]:
        assert fresh.places(number).tolist() == wanted[number]
        assert fresh.locate(number) == divmod(number, in_order.micro_batches)


def test_each_epoch_seed_and_stream_has_its_own_order():
    plans = [plan_of(SUMMARIES, 512, seed, stream) for seed, stream in ((1, 0), (2, 0), (1, 1))]
    found = [epoch(plan, number) for plan in plans for number in (0, 1)]
    assert len({tuple(i for batch in one for i in batch) for one in found}) == 6
    # Also as sets: micro-batches are new combinations, not old ones in another order.
    groups = [{frozenset(batch) for batch in one} for one in found]
    for i in range(1, 6):
        assert len(groups[0] & groups[i]) < 0.01 * len(groups[0])


def test_who_meets_whom_is_left_to_chance():
    # Of 2,000 sequences some 250 are of like length to one of middling length: those it can meet. Over 100 epochs it
    # meets nearly all of them, about 3 times each, and none in more than every tenth epoch.
    plan = plan_of(SUMMARIES[:2000], 512)
    place = 800
    companions: list[int] = []
    for number in range(100):
        mine = next(batch for batch in epoch(plan, number) if place in batch)
        companions += [other for other in mine if other != place]
    times = np.unique(companions, return_counts=True)[1]
    assert len(companions) > 600 and len(times) > 200 and times.max() <= 10


def test_sorting_does_not_decide_who_meets_whom():
    # No two lengths are equal: sorted as a whole, an epoch would have the same neighbours, so the same micro-batches,
    # every time. Dealt to windows row by row, hardly one group of four comes again.
    groups = [{frozenset(batch) for batch in epoch(plan_of(np.arange(1000, 5000), 12_000), e)} for e in (0, 1)]
    assert len(groups[0]) > 900 and len(groups[0] & groups[1]) < 0.02 * len(groups[0])


def test_a_micro_batch_does_not_tell_where_its_epoch_is_by_its_lengths():
    # Layouts go from long to short, so micro-batches are shuffled after. The means of the halves of an epoch differ by
    # chance alone; 1,476 micro-batches of mean lengths that scatter by about 33 give 33 * sqrt(4 / 1476) = 1.7, and 5
    # of these is the bound. Consecutive ones hardly correlate: drawn without replacement from windows of 36 they do by
    # -1/35 or so, and 1,475 pairs scatter by 0.026, times 5.
    found = epoch(plan_of(SUMMARIES, 512), 0)
    ordered = np.sort(SUMMARIES)
    means = np.array([ordered[batch].mean() for batch in found])
    assert means.std() < 40
    half = len(means) // 2
    assert abs(means[:half].mean() - means[half:].mean()) < 5 * 1.7
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 1 / 35 + 5 * 0.026


def test_a_window_is_a_fair_sample_of_all_lengths():
    # What a global batch sees does not wander over an epoch: every window has the store's mean length, to the part of
    # the longest sequence by which windows may differ.
    plan = plan_of(np.repeat(SUMMARIES, 20), 512)
    window = 64
    tokens = np.array([plan.tokens(k) for k in range(10 * window)]).reshape(10, window).sum(axis=1)
    sequences = np.array([len(plan.places(k)) for k in range(10 * window)]).reshape(10, window).sum(axis=1)
    assert np.abs(tokens / sequences / SUMMARIES.mean() - 1).max() < 0.02


# --- any size ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sequences", [10**5, 10**9, 10**12])
def test_properties_hold_for_an_index_of_any_size(sequences):
    # No data: a plan needs to know how many sequences there are of each length. Numbers from all over an epoch.
    lengths = lengths_of(SUMMARIES, sequences // 10_000)
    assert lengths.sequences == sequences
    plan = Plan(lengths, 4096, 1)
    assert plan.filling > 0.97
    starts = 7 * plan.micro_batches + np.random.default_rng(2).integers(0, plan.micro_batches - 640, 3)
    numbers = np.unique(np.concatenate([start + np.arange(640) for start in starts]))
    seen = np.concatenate([plan.places(int(number)) for number in numbers])
    assert seen.min() >= 0 and seen.max() < sequences
    assert len(np.unique(seen)) == len(seen) > 10_000  # each once
    for number in numbers[:50].tolist():
        places = plan.places(number)
        assert lengths.values_K[lengths.kinds(places)].sum() == plan.tokens(number) <= 4096
    # And from all over the store: every window has its part of each row, so only the windows at both ends of the three
    # runs, of ten or more each, are not there as a whole.
    share = np.bincount(seen * 20 // sequences, minlength=20) / len(seen)
    assert np.abs(share - 0.05).max() < 0.005


def test_work_and_memory_do_not_grow_with_the_index():
    # Counted, not timed: the sequences whose places are worked out for a window, which is all the work there is; and
    # the peak memory of a fresh process that plans 10^5 and 10^9 sequences and asks for micro-batches of a late epoch.
    code = """
import resource, sys, numpy as np
from distil.data.lengths import Lengths
from distil.data.sampler import Plan
sizes = np.clip(np.random.default_rng(0).lognormal(np.log(70), 0.6, 10_000), 5, 128).astype(int)
values, counts = np.unique(sizes, return_counts=True)
plan = Plan(Lengths.of(zip(values, counts * int(sys.argv[1]), strict=True)), 4096, 1)
late = 9 * plan.micro_batches + plan.micro_batches // 2
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for number in range(late, late + 4000):
    plan.places(number), plan.tokens(number)
rows = max(sum(map(len, plan._window(*key)[0])) for key in ((9, w) for w in range(3)))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    found = {}
    for times in (10, 10**5):
        done = subprocess.run(
            [sys.executable, "-c", code, str(times)], cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        found[times] = list(map(int, done.stdout.split()))
    (small_rows, small_kib), (large_rows, large_kib) = found.values()
    assert large_rows < 4000 and large_rows < 2 * small_rows + 2000
    # WINDOWS_KEPT windows of some thousand places are kept, 8 bytes each: 2 MiB; the rest is the allocator's.
    assert WINDOWS_KEPT * large_rows * 8 < 4 * 2**20
    assert large_kib - small_kib < 8 * 1024


# --- edges ---------------------------------------------------------------------------------------------------------


def test_a_budget_that_is_just_enough():
    plan = plan_of([64] * 4, 64)
    assert [plan.tokens(k) for k in range(4)] == [64] * 4 and plan.micro_batches == 4


def test_tokens_beyond_32_bits():
    plan = plan_of([2**30] * 3, 3 * 2**30)
    assert plan.micro_batches == 1 and plan.tokens(0) == 3 * 2**30


def test_too_long_a_sequence_is_refused():
    plan_of([3, 9, 4], 9)
    with pytest.raises(DataError, match="9 tokens and a micro-batch holds 8"):
        plan_of([3, 9, 4], 8)


def test_the_plan_is_the_same_on_any_machine():
    # A plan made by one release must be that of the next, or no run resumes.
    plan = plan_of([3, 3, 4, 5, 5, 5, 7, 8], 16, seed=56)
    assert [plan.places(k).tolist() for k in range(2 * plan.micro_batches)] == GOLDEN


GOLDEN = [[6, 2, 0], [7, 5, 1], [4, 3], [6, 5], [3, 2, 1], [7, 4, 0]]

# --- generators ----------------------------------------------------------------------------------------------------


def test_a_generator_is_a_function_of_its_stream_and_key():
    assert generator("masks", 1, 2, 3).random(8).tolist() == generator("masks", 1, 2, 3).random(8).tolist()


def test_streams_and_keys_are_independent():
    keys = [(stream, *key) for stream in STREAMS for key in ((0, 0), (0, 1), (1, 0), (1, 1))]
    draws = np.stack([generator(*key).standard_normal(4000) for key in keys])
    assert len({tuple(draw[:4]) for draw in draws}) == len(keys) == 16
    # Correlations of independent numbers scatter by 1 / sqrt(4000) = 0.016; 5 of these over 120 pairs.
    correlations = np.corrcoef(draws) - np.eye(len(keys))
    assert np.abs(correlations).max() < 5 / np.sqrt(4000)


def test_the_numbers_are_the_same_on_any_machine():
    # PCG64 of SeedSequence((0, 56, 0)).
    assert generator("order", 56, 0).permutation(8).tolist() == [1, 7, 6, 5, 3, 4, 2, 0]
