"""Labels as words and numbers."""

from __future__ import annotations

import numpy as np
import pytest

from distil.errors import DataError
from distil.tasks.catalogue import find, own_task
from distil.tasks.labels import classes_in, labels_of

place = "f.csv: line {}".format


def test_names_and_ids_are_one():
    values = ["entailment", 1, "2", 2.0, "neutral ", np.int64(0)]
    assert labels_of(find("mnli"), values, place).tolist() == [0, 1, 2, 2, 1, 0]


def test_names_that_are_numbers_are_names():
    """Classes 1 to 3 have ids 0 to 2, so 0 is no class of theirs."""
    task = own_task("own", ["text"], "stars", ["1", "2", "3"])
    assert labels_of(task, ["1", 2, 3.0], place).tolist() == [0, 1, 2]
    with pytest.raises(DataError, match="f.csv: line 1: label '0' is none of own's: 1, 2, 3"):
        labels_of(task, [1, 0], place)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["neutral", "nuetral"], r"line 1: label 'nuetral' is none of mnli's: .* \(did you mean neutral\?\)"),
        ([3], "line 0: label '3' is none of"),
        ([0, 1, -1], "line 2: label '-1' is none of .*; the labels of this split are not public"),
        ([None], "line 0: label 'None' is none of"),
        ([True], "line 0: label 'True' is none of"),
        ([0.5], "line 0: label '0.5' is none of"),
        ([""], "line 0: label '' is none of"),
    ],
)
def test_a_label_out_of_range_is_one_line(values, message):
    with pytest.raises(DataError, match=f"f.csv: {message}"):
        labels_of(find("mnli"), values, place)


def test_values():
    found = labels_of(find("stsb"), ["0.25", 5, 3.0], place)
    assert found.dtype == np.float32 and found.tolist() == [0.25, 5, 3]
    for bad in ("five", None, "nan", float("inf")):
        with pytest.raises(DataError, match="f.csv: line 1: label .* is no number"):
            labels_of(find("stsb"), ["1", bad], place)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["pos", "neg", "pos"], ("neg", "pos")),
        (["10", "9", "-1", "9"], ("-1", "9", "10")),
        ([10, 9, 9.0, 10], ("9", "10")),
        ([True, False, True], ("False", "True")),
        (["2", "b", "10", "b"], ("10", "2", "b")),
    ],
)
def test_classes_are_found_in_order(values, expected):
    assert classes_in(values, place) == expected
    task = own_task("own", ["text"], "label", expected)
    assert sorted(set(labels_of(task, values, place))) == list(range(len(expected)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", None], "line 1: has no label"),
        (["a", " "], "line 1: has no label"),
        (["a", "a"], "line 0: its label, a, is that of every row"),
        ([0.1, 0.2, 0.3], "line 0: every row has a label of its own: is this the column, or is it a regression"),
    ],
)
def test_what_are_no_classes_is_one_line(values, message):
    with pytest.raises(DataError, match=f"f.csv: {message}"):
        classes_in(values, place)
