"""Figures as a person reads them."""

from __future__ import annotations

import math

import pytest

from distil.report.figures import COUNT, NOTHING, SHARE, duration, millions, of_tag, short, shown


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0.3394, SHARE, "33.9 %"), (0.0, SHARE, "0.0 %"), (5.9e-5, SHARE, "0.0059 %"), (1, SHARE, "100.0 %"),
        (265170.0, COUNT, "265,170"), (0.5, COUNT, "0.5"), (None, SHARE, NOTHING), ("imdb", SHARE, "imdb"),
        (math.inf, "number", "∞"), (-math.inf, "number", "−∞"), (math.nan, COUNT, "not a number"),
        (True, COUNT, "True"),
    ],
)  # fmt: skip
def test_a_figure_of_its_kind(value, kind, text):
    assert shown(value, kind) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9.2834, "9.283"), (0, "0"), (-2.5, "-2.5"), (1234.4, "1,234"), (17_420_346, "17.4 M"), (65536, "65.5 k"),
        (6e-4, "6e-4"), (4.878e-6, "4.88e-6"), (-1e-4, "-1e-4"), (3e12, "3 T"), (1e300, "1e+300"), (0.001, "0.001"),
    ],
)  # fmt: skip
def test_a_number_in_few_digits(value, text):
    assert short(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (167, "2 min 47 s"),
        (7260, "2 h 1 min"),
        (90 * 3600, "3 d 18 h"),
    ],
)
def test_how_long_it_took(seconds, text):
    assert duration(seconds) == text


def test_kinds_by_name():
    kinds = [of_tag(tag) for tag in ("heldout/mlm_accuracy", "data/wait_fraction", "data/tokens", "loss/total")]
    assert (
        kinds == [SHARE, SHARE, COUNT, "number"] and millions(66_362_880) == "66.4 M" and millions(31_400) == "31.4 k"
    )
