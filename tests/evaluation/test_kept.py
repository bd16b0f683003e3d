"""What models say, read off their logits, and how much of it is alike or right, on cases made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distil.evaluation.examples import Example
from distil.evaluation.kept import alike, pearson, read, right
from distil.kernels import IGNORED

REAL = {"attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}


def test_tokens_of_padding_say_nothing():
    logits = torch.zeros(2, 3, 5)
    for b, row in enumerate([[4, 0, 2], [1, 3, 4]]):
        for i, best in enumerate(row):
            logits[b, i, best] = 1
    for kind in ("mlm", "clm"):
        assert [said.tolist() for said in read(kind, logits, REAL)] == [[4, 0, 2], [1, 3]]


def test_a_class_and_a_value():
    assert read("classes", torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]]), REAL) == [1, 0]
    assert read("value", torch.tensor([[0.5], [-2.0]]), REAL) == [0.5, -2.0]


def test_an_answer_does_not_end_in_the_padding():
    logits = torch.tensor([[[0, 0], [1, 0], [0, 9]], [[0, 1], [2, 0], [9, 9]]], dtype=torch.float)
    assert [tuple(said) for said in read("spans", logits, REAL)] == [(1, 2), (1, 0)]


def test_alike():
    assert alike("classes", [0, 1, 2, 2], [0, 1, 2, 1]) == 0.75
    assert alike("mlm", [np.array([1, 2, 3]), np.array([4])], [np.array([1, 2, 0]), np.array([4])]) == 0.75
    assert alike("spans", [np.array([1, 2]), np.array([0, 0])], [np.array([1, 3]), np.array([0, 0])]) == 0.5
    assert alike("value", [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]) == pytest.approx(1)


def examples(*labels: object) -> list[Example]:
    return [Example((1,), None, label) for label in labels]


def test_right():
    assert right("classes", [0, 1, 1], examples(0, 1, 2)) == pytest.approx(2 / 3)
    assert right("classes", [0, 1], examples(0, None)) is None
    assert right("value", [1.0, 2.0, 3.0], examples(4.0, 2.0, 0.0)) == pytest.approx(-1)
    assert right("spans", [np.array([1, 2]), np.array([0, 0])], examples((1, 2), (0, 1))) == 0.5


def test_only_tokens_that_are_asked_for_count():
    said = [np.array([7, 8, 9]), np.array([5, 6])]
    assert right("mlm", said, examples((IGNORED, 8, 1), (5, IGNORED))) == pytest.approx(2 / 3)
    assert right("mlm", said, examples((IGNORED,) * 3, (IGNORED,) * 2)) is None


def test_pearson_is_that_of_numpy_and_nothing_where_nothing_varies():
    a, b = [1.0, 2.0, 4.0, 8.0], [3.0, 1.0, 5.0, 4.0]
    assert pearson(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert pearson(a, [1.0] * 4) is None and pearson([1.0], [2.0]) is None
