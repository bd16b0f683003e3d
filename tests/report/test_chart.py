"""A chart's points are where its axes say, and every value is somewhere on it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from left import recorded

from distil.report.chart import BOTTOM, TOP, WIDTH, Axis, svg
from distil.report.panels import sections

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def drawn(values, tag="loss/total", last=None):
    """The chart of one curve, parsed."""
    panel = next(iter(sections(recorded({tag: values}).curves).values()))[0]
    return ElementTree.fromstring(svg(panel, last or len(values)))


def path(chart, kind="line"):
    return next(p.get("d") for p in chart.iter("path") if p.get("class") == kind)


def points(d):
    return [tuple(map(float, NUMBER.findall(part)[:2])) for part in re.findall(r"[ML]([^MLh]*)", d)]


def test_a_line_runs_from_point_to_point():
    at = points(path(drawn([4.0, 2.0, 3.0])))
    assert len(at) == 3 and at[0][0] < at[1][0] < at[2][0]
    assert at[0][1] < at[2][1] < at[1][1]  # pixels grow downwards
    assert at[1][1] - at[2][1] == pytest.approx(at[2][1] - at[0][1], abs=0.2)  # to a tenth of a pixel each


@given(st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=50))
def test_every_value_has_room(values):
    if len(set(values)) < 2:
        return
    for x, y in points(path(drawn(values))):
        assert 0 <= x <= WIDTH and TOP - 0.05 <= y <= BOTTOM + 0.05


def test_a_line_breaks_where_a_value_is_not_finite():
    d = path(drawn([1.0, 2.0, float("nan"), 3.0, float("inf"), 4.0, 5.0]))
    assert d.count("M") == 3 and d.count("L") == 2 and "nan" not in d and "inf" not in d


def test_a_curve_without_a_finite_value_is_told_of():
    chart = drawn([float("nan"), float("nan")])
    assert path(chart) == "" and "no finite value" in chart.get("aria-label")
    assert list(chart.iter("circle")) == []


def test_values_far_apart_are_shown_by_their_ratio_where_that_says_more():
    at = [y for _, y in points(path(drawn([1000.0, 100.0, 10.0])))]
    assert at[1] - at[0] == pytest.approx(at[2] - at[1], abs=0.2)
    at = [y for _, y in points(path(drawn([1000.0, 100.0, 10.0], "optimizer/lr")))]
    assert at[1] - at[0] == pytest.approx(10 * (at[2] - at[1]), abs=1.2)


def test_a_noisy_curve_is_drawn_faintly_with_its_mean():
    chart = drawn(np.random.default_rng(0).normal(size=500))
    raw, mean = (np.ptp([y for _, y in points(path(chart, kind))]) for kind in ("raw", "line"))
    assert mean < 0.5 * raw


def test_what_a_reader_hears_is_what_is_drawn():
    label = drawn([0.25, 0.75, 0.5], "heldout/mlm_accuracy").get("aria-label")
    assert label == "Held-out accuracy by step. from 25.0 % at step 1 to 50.0 % at step 3, between 25.0 % and 75.0 %."


def test_charts_of_a_page_share_their_steps():
    short, long = (points(path(drawn([1.0, 2.0], last=last)))[-1][0] for last in (2, 20))
    assert long < short / 4


@pytest.mark.parametrize(
    ("axis", "ticks"),
    [
        (Axis(0, 130, 0, 1), [0, 50, 100]), (Axis(0.216, 0.345, 0, 1), [0.25, 0.3]), 
        (Axis(-1, 1, 0, 1), [-1, -0.5, 0, 0.5, 1]),
        (Axis(0, 6e-4, 0, 1), [0, 2e-4, 4e-4, 6e-4]), (Axis(0.5, 2000, 0, 1, log=True), [1, 10, 100, 1000]),
        (Axis(8, 300, 0, 1, log=True), [10, 30, 100, 300]), (Axis(1e-9, 1e9, 0, 1, log=True), None),
    ],
)  # fmt: skip
def test_ticks_are_round_and_few(axis, ticks):
    found = axis.ticks(5 if axis.low < 0 else 4)
    assert ticks is None or found == pytest.approx(ticks)
    assert 2 <= len(found) <= 6


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_lie_on_the_axis(low, extent, most):
    found = Axis(low, low + extent, 0, 1).ticks(most)
    slack = 1e-6 * max(abs(low), extent)
    assert len(found) <= most + 1 and all(low - slack <= value <= low + extent + slack for value in found)
