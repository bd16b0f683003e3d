"""How windows are cut: rows once each, every window within the budget, budgets filled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.data.layout import SIZES, Layout, arrange
from distil.data.lengths import Lengths


def lengths_of(sizes: np.ndarray | list[int], times: int = 1) -> Lengths:
    values, counts = np.unique(sizes, return_counts=True)
    return Lengths.of(zip(values, counts * times, strict=True))


@st.composite
def cases(draw) -> tuple[Lengths, int]:
    sizes = draw(st.lists(st.integers(1, 64), min_size=1, max_size=400))
    return lengths_of(sizes), draw(st.integers(max(sizes), 400))


def longest_of_rows(lengths: Lengths, layout: Layout) -> np.ndarray:
    rows = len(layout.rows_W)
    return lengths.values_K[lengths.kinds(layout.over + layout.windows * np.arange(1, rows + 1) - 1)]


# --- lengths -------------------------------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(1, 64), min_size=1, max_size=400))
def test_lengths_know_what_stands_where(sizes):
    lengths = lengths_of(sizes)
    assert (lengths.sequences, lengths.tokens, lengths.longest) == (len(sizes), sum(sizes), max(sizes))
    assert lengths.values_K[lengths.kinds(np.arange(len(sizes)))].tolist() == sorted(sizes)


def test_tokens_beyond_64_bits_are_exact():
    assert Lengths.of([(2**31, 2**40)]).tokens == 2**71


# --- layouts -------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(case=cases())
def test_any_window_fits_the_budget(case):
    lengths, budget = case
    layout = arrange(lengths, budget)
    rows = (lengths.sequences - layout.over) // layout.windows
    assert layout.over + rows * layout.windows == lengths.sequences and 0 <= layout.over < layout.windows
    assert sorted(layout.rows_W.tolist()) == list(range(rows))  # each row in one micro-batch
    assert all(len(group) for group in layout.groups)
    longest = longest_of_rows(lengths, layout)
    loads = [int(longest[group].sum()) for group in layout.groups]  # the worst that any window can hold
    if layout.over and layout.host is not None:
        loads[layout.host] += int(lengths.values_K[lengths.kinds(np.array([layout.over - 1]))][0])
    assert max(loads) <= budget
    assert np.diff(layout.bounds).tolist() == list(map(len, layout.groups))


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_windows_differ_by_less_than_the_longest_sequence(case):
    # Row by row the shortest of a row is no shorter than the longest of the row before, so the differences add up to
    # at most the longest sequence: that is why one cut serves all windows.
    lengths, budget = case
    layout = arrange(lengths, budget)
    rows = np.arange(len(layout.rows_W))
    shortest = lengths.values_K[lengths.kinds(layout.over + layout.windows * rows)]
    assert (longest_of_rows(lengths, layout) - shortest).sum() < lengths.longest


def test_equal_lengths_are_cut_as_one_would():
    # 512 tokens hold 5 sequences of 100: 23 sequences take 5 micro-batches, which no window needs to differ in.
    assert arrange(lengths_of([100] * 23), 512).micro_batches == 5
    assert arrange(lengths_of([512] * 1000), 4096).micro_batches == 125
    assert arrange(lengths_of([300] * 1000), 512).micro_batches == 1000
    assert arrange(lengths_of([7]), 512).micro_batches == 1


DRAW = np.random.default_rng(0)
SUMMARIES = np.clip(DRAW.lognormal(np.log(70), 0.6, 10_000), 5, 128).astype(int)
ARTICLES = np.clip(DRAW.lognormal(np.log(60), 0.7, 10_000), 5, 512).astype(int)
FULL = np.r_[np.full(20_000, 512), np.arange(12, 512).repeat(4)]


@pytest.mark.parametrize(
    ("sizes", "budget"),
    [(SUMMARIES, 4 * 128), (ARTICLES, 8 * 512), (FULL, 8 * 512), (FULL, 512), (np.arange(12, 513).repeat(9), 4096)],
    ids=["summaries", "articles", "documents", "one a batch", "uniform"],
)
@pytest.mark.parametrize("times", [1, 10**5])
def test_the_budget_is_filled(sizes, budget, times):
    lengths = lengths_of(sizes, times)
    layout = arrange(lengths, budget)
    assert lengths.tokens / (layout.micro_batches * budget) >= 0.97
    assert layout.windows >= 10  # and there is something left to shuffle
    assert len(layout.groups) <= SIZES[-1]  # the work of a micro-batch is bounded


@pytest.mark.parametrize("times", [1, 1000])
def test_lengths_within_a_micro_batch_are_alike(times):
    # Attention pads inside itself where it has no kernel for packed sequences: what each micro-batch padded to its
    # longest would waste. In random order it is 40 % and more.
    lengths = lengths_of(SUMMARIES, times)
    layout = arrange(lengths, 512)
    longest = longest_of_rows(lengths, layout)
    padded = sum(int(longest[group].max()) * len(group) for group in layout.groups)
    assert 1 - longest.sum() / padded < 0.1
    at_random = np.array_split(np.random.default_rng(1).permutation(longest), len(layout.groups))
    assert 1 - longest.sum() / sum(int(group.max()) * len(group) for group in at_random) > 0.3


def test_the_layout_of_a_trillion_sequences_is_no_larger():
    small, large = (arrange(lengths_of(ARTICLES, times), 4096) for times in (10**2, 10**8))
    assert len(large.rows_W) < 1.1 * len(small.rows_W) + 100
    assert large.micro_batches > 10**5 * small.micro_batches
