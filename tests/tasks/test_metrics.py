"""Metrics against scikit-learn and scipy: ties, constant predictions, classes that nobody has."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sklearn

from distil.tasks import metrics
from distil.tasks.catalogue import find
from distil.tasks.task import Answer, Examples

# Sums in another order: a few units of the last place, and the correlations' roots of them.
CLOSE = {"rel": 1e-9, "abs": 1e-9}
HAND_MADE = [
    ([0, 1, 1, 0], [0, 1, 0, 0]),
    ([1, 1, 1, 1], [0, 1, 0, 1]),  # constant predictions
    ([0, 0, 0, 0], [0, 1, 0, 1]),
    ([0, 0, 0], [0, 0, 0]),  # no positive anywhere
    ([1, 1], [1, 1]),
    ([0, 1, 0, 1], [1, 0, 1, 0]),  # all wrong
    ([1], [0]),
    ([2, 0, 1, 2, 2], [2, 0, 0, 1, 2]),
    ([0, 0, 3], [0, 2, 2]),  # classes that one side lacks
]
VALUES = [
    ([1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]),
    ([1.0, 1.0, 2.0, 2.0, 5.0], [0.0, 2.5, 2.5, 2.5, 5.0]),  # ties on both sides
    ([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]),
    ([0.1, 0.1, 0.1 + 1e-9], [1.0, 2.0, 3.0]),
    ([-7.0, 1e6, 3.0, 3.0], [0.0, 5.0, 5.0, 1.0]),
]


@pytest.mark.parametrize(("predicted", "true"), HAND_MADE)
def test_classes_by_hand(predicted, true):
    predicted, true = np.array(predicted), np.array(true)
    assert metrics.accuracy(predicted, true) == pytest.approx(sklearn.accuracy_score(true, predicted))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a single class
        assert metrics.matthews(predicted, true) == pytest.approx(sklearn.matthews_corrcoef(true, predicted), **CLOSE)
    expected = sklearn.f1_score(true == 1, predicted == 1, zero_division=0)
    assert metrics.f1(predicted, true) == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_classes(pairs):
    test_classes_by_hand(*zip(*pairs, strict=True))


@pytest.mark.parametrize(("predicted", "true"), VALUES)
def test_values_by_hand(predicted, true):
    assert metrics.pearson(predicted, true) == pytest.approx(stats.pearsonr(predicted, true)[0], rel=1e-6)
    assert metrics.spearman(predicted, true) == pytest.approx(stats.spearmanr(predicted, true)[0], **CLOSE)


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(0, 10)), min_size=2, max_size=40))
def test_values(pairs):
    predicted, true = np.array(pairs, dtype=np.float32).T / np.float32(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constants
        expected = [stats.pearsonr(predicted, true)[0], stats.spearmanr(predicted, true)[0]]
    expected = [0.0 if math.isnan(value) else value for value in expected]  # what we say of constants
    # scipy computes in float32 where the input is so.
    assert metrics.pearson(predicted, true) == pytest.approx(expected[0], abs=1e-6)
    assert metrics.spearman(predicted, true) == pytest.approx(expected[1], **CLOSE)


@pytest.mark.parametrize("metric", [metrics.pearson, metrics.spearman])
def test_a_constant_correlates_with_nothing(metric):
    assert metric(np.full(3, 0.1), np.arange(3.0)) == metric(np.arange(3.0), np.full(3, 0.1)) == 0.0


def test_matthews_of_many_examples_does_not_overflow():
    """Products of four counts of 10^6 exceed 64 bits."""
    true = np.arange(2_000_000) % 2
    predicted = np.where(np.arange(2_000_000) % 10 == 0, 1 - true, true)
    assert metrics.matthews(predicted, true) == pytest.approx(sklearn.matthews_corrcoef(true, predicted), **CLOSE)


def examples(labels: object = (), answers: tuple[Answer, ...] = (), count: int = 0) -> Examples:
    count = count or max(len(labels), len(answers))
    return Examples(tuple(map(str, range(count))), (("",) * count,), np.array(labels), answers)


def test_scores_are_the_tasks_metrics_in_its_order():
    assert list(metrics.score(find("mrpc"), np.array([1, 0]), examples([1, 1])).items()) == [
        ("f1", pytest.approx(2 / 3)), ("accuracy", 0.5)
    ]  # fmt: skip
    assert list(metrics.score(find("cola"), np.array([1, 0]), examples([1, 0]))) == ["matthews"]
    values = np.array([0.5, 1, 4], dtype=np.float32)
    assert metrics.score(find("stsb"), values, examples(values)) == {
        "pearson": pytest.approx(1), "spearman": pytest.approx(1)
    }  # fmt: skip
    asked = examples(answers=(Answer(("the cat",), (0,)), Answer((), ())))
    assert metrics.score(find("squad_v2"), ["Cat", ""], asked) == {"exact_match": 1.0, "f1": 1.0}
    with pytest.raises(ValueError, match="3 predictions for 2 examples"):
        metrics.score(find("cola"), np.zeros(3), examples([1, 0]))


def test_one_score_in_percent():
    assert metrics.mean_percent({"validation": {"f1": 0.8, "accuracy": 0.6}}) == pytest.approx(70)
    two = {"validation_matched": {"accuracy": 0.8}, "validation_mismatched": {"accuracy": 0.7}}
    assert metrics.mean_percent(two) == pytest.approx(75)
