"""The learning rate: linear up, linear down, the peak where the recipe says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from distil.schedule import learning_rate

# Each rate takes at most three roundings to double (2^-53 each), whichever way it is computed.
ROUNDING = 1e-15


def rates(total: int, peak: float, fraction: float) -> list[float]:
    return [learning_rate(step, total, peak, fraction) for step in range(total)]


def test_the_papers_schedule_by_hand():
    # 100 steps, 5 % of them warm-up, peak 5e-4: five steps up, then 95 equal steps down that would end at 0.
    found = rates(100, 5e-4, 0.05)
    assert found[:6] == pytest.approx([1e-4, 2e-4, 3e-4, 4e-4, 5e-4, 5e-4], rel=ROUNDING)
    assert found[6] == pytest.approx(5e-4 * 94 / 95, rel=ROUNDING)
    assert found[99] == pytest.approx(5e-4 / 95, rel=ROUNDING)
    assert learning_rate(100, 100, 5e-4, 0.05) == 0.0


def test_part_of_a_warm_up_step_counts_as_one():
    # 5 % of 190 steps is 9.5: the tenth step has the peak and the ninth does not.
    found = rates(190, 1.0, 0.05)
    assert found[8] == pytest.approx(0.9, rel=ROUNDING) and found[9] == 1.0


@given(
    total=st.integers(1, 300),
    # Quarters: fractions whose product with any total is exact, so that ceil is beyond dispute.
    quarters=st.integers(0, 3),
    peak=st.floats(1e-8, 10),
)
@example(total=1, quarters=3, peak=1.0)
@example(total=1, quarters=0, peak=1.0)
def test_the_shape_is_two_straight_lines(total, quarters, peak):
    up = -(-quarters * total // 4)  # ceil, in whole numbers
    found = rates(total, peak, quarters / 4)
    # Knots of the two lines, for np.interp: 0 one step before the first, the peak at the last warm-up step.
    rising = np.interp(np.arange(up), [-1, up - 1], [0, peak]) if up else []
    falling = np.interp(np.arange(up, total), [up, total], [peak, 0]) if up < total else []
    assert found == pytest.approx([*rising, *falling], rel=4 * ROUNDING)  # np.interp rounds a few times itself


@given(total=st.integers(1, 300), fraction=st.floats(0, 0.99), peak=st.floats(1e-8, 10))
def test_every_step_learns_and_none_above_the_peak(total, fraction, peak):
    found = rates(total, peak, fraction)
    assert min(found) > 0
    assert max(found) == pytest.approx(peak, rel=ROUNDING)
    top = int(np.argmax(found))
    assert all(a < b for a, b in zip(found[:top], found[1 : top + 1], strict=True))
    assert all(a >= b for a, b in zip(found[top:], found[top + 1 :], strict=False))


def test_the_rate_is_proportional_to_the_peak():
    one, four = rates(40, 1.0, 0.1), rates(40, 4.0, 0.1)  # powers of two: scaling is exact
    assert [4 * rate for rate in one] == four


def test_warm_up_is_counted_exactly():
    # 0.07 x 100 is 7.000000000000001 in floating point: the peak must come at the 7th step, not the 8th.
    assert learning_rate(6, 100, 1.0, 0.07) == 1.0 == learning_rate(7, 100, 1.0, 0.07)
