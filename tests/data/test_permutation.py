"""The computed shuffle: a bijection for any size and key, as random as a test can tell, of constant memory."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.data.permutation import mix, permute, subkey

KEYS = st.integers(0, 2**64 - 1)


@settings(max_examples=150, deadline=None)
@given(size=st.integers(1, 3000), key=KEYS)
def test_every_place_is_taken_once(size, key):
    found = permute(np.arange(size), size, np.uint64(key))
    assert found.dtype == np.int64 and np.array_equal(np.sort(found), np.arange(size))


@settings(max_examples=60, deadline=None)
@given(size=st.integers(2**31, 2**62), key=KEYS, data=st.data())
def test_places_of_huge_sizes_are_in_range_and_distinct(size, key, data):
    places = np.unique(data.draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=50)))
    places = np.append(places, [0, size - 1])
    found = permute(places, size, np.uint64(key))
    assert found.min() >= 0 and found.max() < size
    assert len(set(found.tolist())) == len(set(places.tolist()))


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 10**12), min_size=1, max_size=30), key=KEYS)
def test_one_call_for_many_is_many_calls(sizes, key):
    places = np.array([size // 2 for size in sizes])
    keys = subkey(np.uint64(key), np.arange(len(sizes)))
    together = permute(places, np.array(sizes), keys)
    alone = [int(permute(p, s, k)) for p, s, k in zip(places, sizes, keys, strict=True)]
    assert together.tolist() == alone


@pytest.mark.parametrize("size", [2, 3, 4])
def test_small_shuffles_take_every_order_alike(size):
    # 24 orders at most, 20,000 keys: a share of 1/24 scatters by 28 about 833. Keyed rounds are not quite uniform on
    # grids of four numbers; a tenth of the share, 3 of these deviations, is the bound.
    draws = 20_000
    found = permute(np.arange(size)[None, :], size, np.arange(draws, dtype=np.uint64)[:, None])
    orders = Counter(map(tuple, found.tolist()))
    assert len(orders) == math.factorial(size)
    wanted = draws / math.factorial(size)
    assert all(abs(count - wanted) < 0.1 * wanted for count in orders.values())


def test_neighbours_are_strewn_evenly():
    # 100,000 neighbours among 10^9 places, in 100 bins of 1,000: a bin scatters by sqrt(990) = 31.5, six of these.
    found = permute(np.arange(100_000), 10**9, np.uint64(5))
    bins = np.bincount(found // 10**7, minlength=100)
    assert np.abs(bins - 1000).max() < 6 * 31.5
    # And neither order nor distance of neighbours is kept: a correlation of 100,000 pairs scatters by 0.0032.
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 6 * 0.0032


def test_keys_are_independent():
    one, other = (permute(np.arange(100_000), 10**9, np.uint64(key)) for key in (1, 2))
    assert abs(np.corrcoef(one, other)[0, 1]) < 6 * 0.0032
    assert (one == other).sum() < 5  # 0.0001 are to be expected


def test_a_mixed_bit_flips_half_of_the_others():
    # 64 x 64 pairs of bits over 2,000 numbers: the mean of a pair scatters by 0.011; six of these.
    numbers = np.random.default_rng(0).integers(2**64, size=2000, dtype=np.uint64)
    for bit in range(64):
        changed = mix(numbers) ^ mix(numbers ^ np.uint64(1 << bit))
        flips = np.unpackbits(changed.view(np.uint8)).reshape(2000, 64).mean(axis=0)
        assert np.abs(flips - 0.5).max() < 6 * 0.0112


def test_subkeys_differ():
    assert len(set(subkey(np.uint64(3), np.arange(10_000)).tolist())) == 10_000


def test_the_shuffle_is_the_same_on_any_machine():
    # Whole runs rest on it: a plan made by one release must be that of the next, or no run resumes.
    assert permute(np.arange(10), 10, np.uint64(56)).tolist() == GOLDEN_10
    assert permute(np.array([0, 1, 10**12 - 1]), 10**12, np.uint64(56)).tolist() == GOLDEN_TRILLION


def test_memory_is_that_of_the_places_asked_for():
    tracemalloc.start()
    permute(np.arange(1000), 10**15, np.uint64(1))
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


GOLDEN_10 = [0, 4, 6, 8, 7, 1, 3, 9, 2, 5]
GOLDEN_TRILLION = [597446620214, 864406068330, 944380025952]
