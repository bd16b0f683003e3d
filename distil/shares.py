"""Shares of a count, exactly."""

from __future__ import annotations

from fractions import Fraction


def ceil_share(count: int, share: float) -> int:
    """ceil(share x count) for the decimal that ``share`` is written as: 0.07 x 100 is 7, in floating point 8."""
    exact = Fraction(repr(share))
    return -(-count * exact.numerator // exact.denominator)


def nearest_share(count: int, share: float) -> int:
    """share x count, of the same decimal, rounded; a half upwards."""
    return (Fraction(repr(share)) * count + Fraction(1, 2)).__floor__()
