"""What models say, read off their logits, and how much of it is alike, on cases made by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distil.evaluation.kept import ALIKE, CLM, MLM, alike, read
from distil.tasks.task import CLASSIFICATION, REGRESSION, SPANS

REAL = {"attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}


def peaks(*places: int, size: int = 5) -> np.ndarray:
    """Logits (n, size) that are largest at these places."""
    return np.eye(size, dtype=np.float32)[list(places)]


def test_tokens_of_padding_say_nothing():
    logits = torch.from_numpy(np.stack([peaks(4, 0, 2), peaks(1, 3, 4)]))
    for kind in ("mlm", "clm"):
        assert [said.tolist() for said in read(kind, logits, REAL)] == [[4, 0, 2], [1, 3]]
    assert [said.shape for said in read("spans", logits[:, :, :2], REAL)] == [(3, 2), (2, 2)]


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_of_a_sequence_all_is_kept(kind):
    logits = torch.tensor([[0.0, 2.0, 1.0], [5.0, 2.0, 1.0]])
    assert np.array_equal(read(kind, logits, REAL), logits)


def test_what_is_read_does_not_keep_the_batch():
    logits = torch.zeros(2, 3, 2)
    said = read("spans", logits, REAL)
    logits += 1
    assert not np.concatenate(said).any()


def test_alike():
    tokens = [np.array([1, 2, 3]), np.array([4])]
    assert alike("mlm", tokens, tokens) == alike("clm", tokens, tokens) == 1
    assert alike("mlm", [np.array([1, 2, 0]), np.array([4])], tokens) == 0.75  # of tokens, not of sequences
    assert alike("classification", list(peaks(0, 1, 2, 2)), list(peaks(0, 1, 2, 1))) == 0.75
    values = [np.array([x], dtype=np.float32) for x in (1, 2, 4)]
    assert alike("regression", [2 * x + 1 for x in values], values) == pytest.approx(1)
    assert alike("regression", [-x for x in values], values) == pytest.approx(-1)


def test_answers_are_alike_where_both_ends_are():
    first, other_end = peaks(0, 3).T, peaks(0, 4).T  # (n, 2): first token 0, last token 3 or 4
    assert alike("spans", [first, first], [first, other_end]) == 0.5


def test_every_kind_is_told_in_words():
    assert ALIKE.keys() == {MLM, CLM, CLASSIFICATION, REGRESSION, SPANS}
