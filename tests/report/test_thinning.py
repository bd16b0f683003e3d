"""A long curve becomes short without losing an extreme, and a noisy one has its mean."""

from __future__ import annotations

import numpy as np
import pytest

from distil.report.events import Curve
from distil.report.thinning import BUCKETS, MEAN_OVER, noisy, running_mean, thinned


def curve(values, first=1):
    return Curve(np.arange(first, first + len(values)), np.asarray(values, dtype=float))


@pytest.mark.parametrize("n", [1, 2, 799, 5000, 100_000])
def test_ends_and_extremes_of_every_stretch_are_kept(n):
    values = np.random.default_rng(n).normal(size=n)
    thin = thinned(curve(values))
    assert len(thin.steps) <= 4 * BUCKETS + 2
    assert (thin.steps[0], thin.steps[-1]) == (1, n) and (np.diff(thin.steps) > 0).all()
    assert np.array_equal(thin.values, values[thin.steps - 1])  # points of the curve, none made up
    all_of, kept_of = (np.arange(n) * BUCKETS // n, (thin.steps - 1) * BUCKETS // n)
    for bucket in np.unique(all_of):
        whole, kept = values[all_of == bucket], thin.values[kept_of == bucket]
        assert (whole.min(), whole.max(), whole[0], whole[-1]) == (kept.min(), kept.max(), kept[0], kept[-1])


def test_a_single_spike_among_many_points_stays():
    values = np.zeros(100_000)
    values[[1234, 77_777]] = 50.0, -3.0
    thin = thinned(curve(values))
    assert thin.values.max() == 50.0 and thin.values.min() == -3.0
    assert {1235, 77_778} <= set(thin.steps.tolist())


def test_a_break_stays_a_break():
    values = np.ones(10_000)
    values[5000] = np.nan
    values[7000] = np.inf
    thin = thinned(curve(values))
    assert {5001, 7001} <= set(thin.steps[~np.isfinite(thin.values)].tolist())


def test_steps_that_are_not_alike_apart_are_buckets_by_step():
    steps = np.concatenate([np.arange(5000), [10**9]])
    thin = thinned(Curve(steps, np.sin(np.arange(5001.0))))
    assert thin.steps[-1] == 10**9 and len(thin.steps) <= 8


def test_the_running_mean_is_that_of_the_finite_values_around():
    values = np.random.default_rng(0).normal(size=203)
    values[[0, 50, 51]] = np.nan
    half = len(values) // MEAN_OVER // 2
    expected = [np.nanmean(values[max(i - half, 0) : i + half + 1]) for i in range(len(values))]
    np.testing.assert_allclose(running_mean(curve(values)).values, expected, rtol=1e-12)
    assert np.isnan(running_mean(curve([np.nan] * 9)).values).all()


def test_noise_is_told_from_a_path():
    t = np.linspace(0, 1, 300)
    rng = np.random.default_rng(1)
    assert noisy(curve(np.exp(-5 * t) + 0.1 * rng.normal(size=300)))
    assert not noisy(curve(np.exp(-5 * t)))
    assert not noisy(curve(np.minimum(t / 0.05, (1 - t) / 0.95)))  # up and down again, once: a learning rate
    assert noisy(curve(np.exp(-20 * t) + 0.001 * rng.normal(size=300)))  # once it has arrived
    assert not noisy(curve(np.repeat(rng.normal(size=10), 30)))  # a loss scale
    assert not noisy(curve(np.ones(300))) and not noisy(curve(rng.normal(size=10)))
    assert not noisy(curve([np.nan] * 100))
