"""Curves of any length as so many points as a screen has room for, without losing an extreme."""

from __future__ import annotations

import numpy as np

from distil.report.events import Curve

BUCKETS = 200  # of a chart about 300 pixels wide
MEAN_OVER = 25  # the running mean reaches over so many parts of the run
_NOISY_FROM = 40  # moves; fewer can be followed by eye
_TURNS = 0.3  # of independent draws two thirds of the moves are turned round by the next one


def thinned(curve: Curve, buckets: int = BUCKETS) -> Curve:
    """At most four points a bucket of equal width in steps: first, last, and where it is least and most.

    So no extreme is lost. Where values are not finite, one of them stays, so that the line is seen to break.
    """
    n = len(curve.steps)
    if n <= 4 * buckets:
        return curve
    first, last = int(curve.steps[0]), int(curve.steps[-1])
    bucket_N = (curve.steps - first) * buckets // max(last - first + 1, 1)
    starts = np.flatnonzero(np.diff(bucket_N, prepend=-1))
    keep = [0, n - 1]
    for start, end in zip(starts, [*starts[1:], n], strict=True):
        values = curve.values[start:end]
        finite = np.flatnonzero(np.isfinite(values))
        if len(finite):
            keep += [start + finite[np.argmin(values[finite])], start + finite[np.argmax(values[finite])]]
        if len(finite) < len(values):
            keep.append(start + int(np.flatnonzero(~np.isfinite(values))[0]))
        keep += [start, end - 1]
    kept = np.unique(keep)
    return Curve(curve.steps[kept], curve.values[kept])


def noisy(curve: Curve) -> bool:
    """Whether a curve turns round so often that one sees its noise rather than where it goes."""
    moves = np.diff(curve.values[np.isfinite(curve.values)])
    turns = np.diff(np.sign(moves[moves != 0])) != 0
    return len(moves) >= _NOISY_FROM and int(turns.sum()) > _TURNS * len(moves)


def running_mean(curve: Curve) -> Curve:
    """The mean of the finite values around each, over 1 / MEAN_OVER of the curve, less at its ends."""
    finite = np.isfinite(curve.values)
    sums = np.cumsum(np.concatenate([[0.0], np.where(finite, curve.values, 0.0)]))
    counts = np.cumsum(np.concatenate([[0], finite]))
    n, half = len(finite), max(len(finite) // MEAN_OVER // 2, 1)
    low, high = np.maximum(np.arange(n) - half, 0), np.minimum(np.arange(n) + half + 1, n)
    with np.errstate(invalid="ignore"):
        means = (sums[high] - sums[low]) / (counts[high] - counts[low])
    return Curve(curve.steps, means)
