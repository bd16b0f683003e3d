"""Shares of a count are exact where floating point is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distil.shares import ceil_share, nearest_share


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


@pytest.mark.parametrize(
    ("steps", "share", "wanted"),
    [
        (30, 0.6, 18),
        (10, 0.33, 3),
        (10, 0.37, 4),
        (5, 0.5, 3),
        (100, 0.145, 15),
        (100, 0.285, 29),
        (7, 1.0, 7),
        (3, 0.1, 0),
    ],
)
def test_the_nearest_count_by_hand(steps, share, wanted):
    # 0.145 x 100 is 14.5, and 0.285 x 100 is 28.5: floating point has 14.499999999999998 and 28.499999999999996.
    assert nearest_share(steps, share) == wanted
