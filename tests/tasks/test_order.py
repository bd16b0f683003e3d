"""Orders: each epoch a permutation, any part without the rest; evaluation: every sequence once, like with like."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distil.tasks.batch import Features, TaskBatch
from distil.tasks.order import Order, evaluation_batches


@given(st.integers(1, 300), st.integers(0, 2**31))
def test_each_epoch_is_a_permutation(count, seed):
    order = Order(count, seed)
    for epoch in range(3):
        assert sorted(order.numbers(epoch * count, (epoch + 1) * count)) == list(range(count))


@given(st.integers(1, 60), st.integers(0, 9), st.integers(0, 500), st.integers(0, 100))
def test_any_part_is_that_of_the_whole(count, seed, start, length):
    whole = Order(count, seed).numbers(0, 600)
    assert np.array_equal(Order(count, seed).numbers(start, start + length), whole[start : start + length])


def test_epochs_and_seeds_differ():
    count = 1000
    first, second = (Order(count, 1).numbers(epoch * count, (epoch + 1) * count) for epoch in (0, 1))
    other = Order(count, 2).numbers(0, count)
    for a, b in ((first, second), (first, other), (first, np.arange(count))):
        assert np.mean(a == b) < 0.02  # of two independent ones 0.001 in the mean
    with pytest.raises(ValueError):
        Order(0, 1)


def features(lengths: list[int]) -> Features:
    starts = np.concatenate(([0], np.cumsum(lengths)))
    tokens = np.arange(starts[-1], dtype=np.int32)
    count = np.arange(len(lengths))
    return Features(tokens, tokens % 2, starts, count * 10, count)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=80), st.integers(1, 120))
def test_evaluation_takes_every_sequence_once_and_keeps_to_the_budget(lengths, budget):
    found = features(lengths)
    batches = evaluation_batches(found, budget)
    numbers = np.concatenate(batches)
    assert sorted(numbers) == list(range(len(lengths)))
    assert (np.diff(found.lengths[numbers]) <= 0).all()
    for batch, following in zip(batches, [*batches[1:], None], strict=True):
        tokens = found.lengths[batch].sum()
        assert tokens <= budget or len(batch) == 1
        assert following is None or tokens + found.lengths[following[0]] > budget, "the next one would have fitted"


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.data())
def test_a_batch_is_its_sequences_end_to_end(lengths, data):
    found = features(lengths)
    numbers = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=10))
    batch = TaskBatch.of(found, numbers)
    rows = [list(range(found.starts[i], found.starts[i + 1])) for i in numbers]
    assert batch.input_ids_N.tolist() == sum(rows, []) == found.places(numbers).tolist()
    assert batch.token_types_N.tolist() == [i % 2 for i in sum(rows, [])]
    assert batch.position_ids_N.tolist() == sum(([*range(len(row))] for row in rows), [])
    assert batch.cu_seqlens_B1.tolist() == np.cumsum([0, *map(len, rows)]).tolist()
    assert batch.labels_B.tolist() == [10 * i for i in numbers] and batch.longest == max(map(len, rows))
