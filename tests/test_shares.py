"""Shares of a count are exact where floating point is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distil.shares import ceil_share


@pytest.mark.parametrize(
    ("tokens", "fraction", "count"),
    [(100, 0.07, 7), (100, 0.15, 15), (20, 0.15, 3), (101, 0.15, 16), (1, 0.15, 1), (0, 0.15, 0), (4096, 0.15, 615)],
)
def test_counts_by_hand(tokens, fraction, count):
    assert ceil_share(tokens, fraction) == count


@given(tokens=st.integers(0, 10**7), thousandths=st.integers(1, 999))
def test_the_count_is_the_exact_ceiling(tokens, thousandths):
    count = ceil_share(tokens, float(f"0.{thousandths:03d}"))
    assert 1000 * count >= thousandths * tokens > 1000 * (count - 1)
