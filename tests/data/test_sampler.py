"""The plan: every sequence once an epoch, within the budget, a pure function of (seed, epoch)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.data.sampler import STREAMS, EpochPlan, Plan, generator
from distil.errors import DataError

# Lengths as in the text of the recipes: log-normal about 70 tokens, cut at 128 (a sixth of them) and 512 (few).
DRAW = np.random.default_rng(0)
SUMMARIES = np.clip(DRAW.lognormal(np.log(70), 0.6, 10_000), 5, 128).astype(np.int32)
ARTICLES = np.clip(DRAW.lognormal(np.log(60), 0.7, 10_000), 5, 512).astype(np.int32)
REALISTIC = pytest.mark.parametrize(
    ("lengths", "budget"), [(SUMMARIES, 4 * 128), (ARTICLES, 8 * 512)], ids=["quickstart", "distilbert"]
)


def batches(plan: EpochPlan) -> list[list[int]]:
    return [plan[k].tolist() for k in range(len(plan))]


@st.composite
def stores(draw):
    lengths = np.array(draw(st.lists(st.integers(1, 64), min_size=1, max_size=300)), dtype=np.int32)
    return lengths, draw(st.integers(int(lengths.max()), 400))


@settings(max_examples=80, deadline=None)
@given(store=stores(), seed=st.integers(0, 2**31), epoch=st.integers(0, 50))
def test_every_sequence_once_and_never_beyond_the_budget(store, seed, epoch):
    lengths, budget = store
    plan = EpochPlan(lengths, budget, seed, epoch)
    found = batches(plan)
    assert sorted(i for batch in found for i in batch) == list(range(len(lengths)))
    assert all(found)
    tokens = [int(lengths[batch].sum()) for batch in found]
    assert plan.tokens.tolist() == tokens and max(tokens) <= budget
    assert batches(EpochPlan(lengths, budget, seed, epoch)) == found


@settings(max_examples=40, deadline=None)
@given(store=stores(), seed=st.integers(0, 2**31))
def test_the_stream_runs_through_the_epochs(store, seed):
    lengths, budget = store
    plan = Plan(lengths, budget, seed)
    number = 0
    for epoch in range(4):
        assert plan.start(epoch) == number
        one = EpochPlan(lengths, budget, seed, epoch)
        for k in range(len(one)):
            assert plan.locate(number) == (epoch, k)
            assert plan.sequences(number).tolist() == one[k].tolist()
            assert plan.tokens(number) == lengths[one[k]].sum()
            number += 1


def test_a_number_can_be_asked_for_out_of_order():
    whole, fresh = Plan(SUMMARIES, 512, 3), Plan(SUMMARIES, 512, 3)
    late = whole.start(3) + 5
    assert fresh.locate(late) == (3, 5)  # as a resumed run does
    assert fresh.sequences(2).tolist() == whole.sequences(2).tolist()
    assert fresh.sequences(late).tolist() == whole.epoch(3)[5].tolist()


def test_each_epoch_and_each_seed_has_its_own_order():
    found = {
        (seed, epoch): [i for batch in batches(EpochPlan(SUMMARIES, 512, seed, epoch)) for i in batch]
        for seed in (1, 2)
        for epoch in (0, 1)
    }
    orders = {tuple(order) for order in found.values()}
    assert len(orders) == 4
    # Also as sets: micro-batches are new combinations, not old ones in another order.
    groups = [{frozenset(batch) for batch in batches(EpochPlan(SUMMARIES, 512, 1, epoch))} for epoch in (0, 1)]
    assert len(groups[0] & groups[1]) < 0.01 * len(groups[0])


def test_a_micro_batch_does_not_tell_where_its_epoch_is_by_its_lengths():
    # Sorted within windows, so shuffled after: else each window would go from short to long. The means of the halves
    # of an epoch differ by chance alone; 776 micro-batches of mean lengths that scatter by about 33 give 33 * sqrt(2 /
    # 776) = 1.7, and 5 of these is the bound. Consecutive ones do not correlate: 1552 pairs scatter by 0.025, times 5.
    plan = EpochPlan(SUMMARIES, 512, 1, 0)
    means = np.array([SUMMARIES[batch].mean() for batch in batches(plan)])
    assert means.std() < 40
    half = len(means) // 2
    assert abs(means[:half].mean() - means[half:].mean()) < 5 * 1.7
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 5 * 0.0254


@REALISTIC
def test_the_budget_is_filled(lengths, budget):
    plan = EpochPlan(lengths, budget, 1, 0)
    assert plan.tokens.mean() >= 0.9 * budget


@REALISTIC
def test_lengths_within_a_micro_batch_are_alike(lengths, budget):
    # What padding each micro-batch to its longest would waste; 40 % and more in random order. The last micro-batch
    # of a window spans to the next, and few windows there are: one in 64, and with the long tail of articles the top
    # of each window is ragged, which the second bound covers.
    def waste(groups) -> float:
        padded = sum(int(lengths[g].max()) * len(g) for g in groups)
        return 1 - sum(int(lengths[g].sum()) for g in groups) / padded

    plan = batches(EpochPlan(lengths, budget, 1, 0))
    order = np.random.default_rng(1).permutation(len(lengths))
    at_random = np.array_split(order, len(plan))
    assert waste(plan) < 0.1 if budget == 512 else waste(plan) < 0.5 * waste(at_random)


def test_sorting_does_not_decide_who_meets_whom():
    # No two lengths are equal: sorted as a whole, an epoch would have the same neighbours, so the same micro-batches,
    # every time. Sorted within windows of a sixteenth of it, hardly one group of four comes again.
    lengths = np.arange(1000, 5000, dtype=np.int32)
    groups = [{frozenset(batch) for batch in batches(EpochPlan(lengths, 12_000, 1, epoch))} for epoch in (0, 1)]
    assert len(groups[0]) > 900 and len(groups[0] & groups[1]) < 0.02 * len(groups[0])


def test_runs_are_cut_greedily():
    # Equal lengths leave the plan no choice: 512 tokens hold 5 sequences of 100.
    plan = EpochPlan(np.full(23, 100, dtype=np.int32), 512, 1, 0)
    assert sorted(map(len, batches(plan))) == [3, 5, 5, 5, 5]


def test_a_budget_that_is_just_enough():
    plan = Plan(np.full(4, 64, dtype=np.int32), 64, 1)
    assert [plan.tokens(k) for k in range(4)] == [64] * 4


def test_tokens_beyond_32_bits():
    lengths = np.full(3, 2**30, dtype=np.int32)  # sums of int32 must not wrap
    plan = Plan(lengths, 3 * 2**30, 1)
    assert len(plan.epoch(0)) == 1 and plan.tokens(0) == 3 * 2**30


def test_too_long_a_sequence_is_refused():
    Plan(np.array([3, 9, 4]), 9, 1)
    with pytest.raises(DataError, match="9 tokens and a micro-batch holds 8"):
        Plan(np.array([3, 9, 4]), 8, 1)


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
    # PCG64 of SeedSequence((0, 56, 0)): a plan made by one release must be that of the next, or no run resumes.
    assert generator("order", 56, 0).permutation(8).tolist() == [1, 7, 6, 5, 3, 4, 2, 0]
