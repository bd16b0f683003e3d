"""The statistics of an ablation's table, held against numbers worked out by hand."""

from __future__ import annotations

import json

import pytest

from distil.config import Recipe
from distil.results import Row
from distil.variants import variants
from distil.variation import Spread, lines_of, table

VARIANTS = variants(Recipe.load("quickstart"), "ce,ce+cos,init")


def row(accuracy: float, perplexity: float, agreement: float | None) -> Row:
    return Row("student after", accuracy, perplexity, agreement, 10, 1.0)


# Differences of equal seeds are -3 and -1 points: mean -2, deviation sqrt(2); 40 and 44: mean 42, deviation 2 sqrt(2).
FOUND = {
    "full": {56: row(0.40, 100.0, 0.50), 57: row(0.44, 104.0, 0.60)},
    "without-ce": {56: row(0.37, 1200.0, 0.30), 57: row(0.43, 1000.0, 0.40)},
    "without-ce+cos": {56: row(0.45, 90.0, None), 57: row(0.39, 91.0, None)},
    "without-init": {56: row(0.10, 300.0, 0.10), 57: row(0.14, 500.0, 0.12)},
}


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


@pytest.mark.parametrize(
    ("values", "mean", "deviation"),
    [([3.0], 3.0, None), ([-3.0, -1.0], -2.0, 2**0.5), ([1.0, 2.0, 6.0], 3.0, 7**0.5)],  # (4 + 1 + 9) / (3 - 1) = 7
)
def test_mean_and_sample_deviation(values, mean, deviation):
    found = Spread.of(values)
    assert found.mean == pytest.approx(mean)
    assert found.deviation == (None if deviation is None else pytest.approx(deviation))


def test_the_table_against_hand_computed_numbers():
    text = table(lines_of(VARIANTS, FOUND))
    head, _, *rows = cells(text)
    assert head == [
        "trained with", "held-out accuracy, %", "variation, points", "perplexity", "agreement, %", "paper: GLUE, points"
    ]  # fmt: skip
    assert rows == [
        ["L_ce - L_cos - L_mlm", "42.00 \u00b1 2.83", "0", "102.0", "55.0", "0"],
        ["\u2205 - L_cos - L_mlm", "40.00 \u00b1 4.24", "-2.00 \u00b1 1.41", "1,100.0", "35.0", "-2.96"],
        # +5 and -5 points: means are alike, the seeds are not.
        ["\u2205 - \u2205 - L_mlm", "42.00 \u00b1 4.24", "+0.00 \u00b1 7.07", "90.5", "-", "-"],
        # Both seeds lose the same 30 points, however far they lie apart themselves.
        ["L_ce - L_cos - L_mlm + random initial weights", "12.00 \u00b1 2.83", "-30.00 \u00b1 0.00", "400.0", "11.0",
         "-3.69"],
    ]  # fmt: skip
    assert "column (Sanh et al. 2019" in text and "is DistilBERT's, whatever student is trained here" in text
    assert "over 2 seeds (56, 57)" in text and "GLUE macro-score" in text and "1910.01108" in text


def test_seeds_are_paired_by_number_not_by_order():
    turned = {name: dict(reversed(rows.items())) if name != "full" else rows for name, rows in FOUND.items()}
    for ours, theirs in zip(lines_of(VARIANTS, turned), lines_of(VARIANTS, FOUND), strict=True):
        assert ours.variation.mean == pytest.approx(theirs.variation.mean)
        assert ours.variation.deviation == pytest.approx(theirs.variation.deviation)


def test_one_seed_shows_no_spread_and_says_so():
    text = table(lines_of(VARIANTS, {name: {56: rows[56]} for name, rows in FOUND.items()}))
    assert cells(text)[3][1:3] == ["37.00", "-3.00"]
    assert "\u00b1" not in text and "One seed (56) shows no spread" in text


def test_rows_of_other_seeds_say_which():
    found = FOUND | {"without-ce": {57: FOUND["without-ce"][57]}}
    text = table(lines_of(VARIANTS, found))
    assert "over 2 seeds (56, 57; of \u2205 - L_cos - L_mlm: 57);" in text
    assert cells(text)[3][1:3] == ["43.00", "-1.00"]


def test_a_recipe_that_is_not_the_papers_is_not_set_beside_it():
    found = variants(Recipe.load("quickstart", {"alpha_mse": 1.0}), "ce,mse")
    rows = {variant.name: FOUND["full"] for variant in found}
    text = table(lines_of(found, rows))
    assert [line[-1] for line in cells(text)[2:]] == ["-", "-", "-"] and "GLUE macro-score" not in text


def test_all_numbers_by_seed_as_plain_values():
    values = json.loads(json.dumps([line.values() for line in lines_of(VARIANTS, FOUND)]))
    assert values[1]["by_seed"]["57"]["accuracy"] == 0.43 and values[1]["left_out"] == ["ce"]
    assert values[1]["variation_points"] == pytest.approx({"mean": -2.0, "deviation": 2**0.5})
    assert values[2]["agreement_percent"] is None and values[1]["paper_glue_points"] == -2.96
