"""SQuAD's rules on cases made by hand."""

from __future__ import annotations

import pytest

from distil.tasks.squad import exact_and_f1, exact_match, normalised, token_f1
from distil.tasks.task import Answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Blue\tHouse", "blue house"),
        ("an apple, a pear and the rest.", "apple pear and rest"),
        ("U.S.A.", "usa"),
        ("theatre another banana", "theatre another banana"),  # articles are whole words
        ("the-cat", "thecat"),  # punctuation goes before articles do
        ("(A)", ""),
        ("Ärzte “und” Straße", "ärzte “und” straße"),  # punctuation is ASCII's alone
        ("\u00a0ten\u2003per cent%", "ten per cent"),
        ("L'été", "lété"),
        ("the", ""),
        ("", ""),
    ],
)
def test_normalised(text, expected):
    assert normalised(text) == expected


@pytest.mark.parametrize(
    ("predicted", "right", "exact", "f1"),
    [
        ("the Nile", "Nile.", 1, 1),
        ("river Nile", "Nile", 0, 2 / 3),
        ("Nile Nile", "Nile", 0, 2 / 3),  # words as a bag: only one is common
        ("a b b c", "b b d", 0, 2 * 2 / 6),  # "a" is an article
        ("Rhine", "Nile", 0, 0),
        ("", "Nile", 0, 0),
        ("東京 タワー", "東京", 0, 2 / 3),
    ],
)
def test_one_answer(predicted, right, exact, f1):
    assert exact_match(predicted, right) == exact
    for unanswerable in (False, True):
        assert token_f1(predicted, right, unanswerable) == pytest.approx(f1)
        assert token_f1(right, predicted, unanswerable) == pytest.approx(f1)


def of(*texts: str) -> Answer:
    return Answer(texts, tuple(range(len(texts))))


def test_the_best_of_several_counts_for_each_metric_by_itself():
    assert exact_and_f1(["deep blue sea"], [of("blue", "deep sea water", "sea")], False) == (0, pytest.approx(4 / 6))
    assert exact_and_f1(["deep"], [of("deep blue", "Deep!")], False) == (1, 1)


def test_no_answer_is_an_answer_in_2_0():
    asked = [of(), of(), of("Nile"), of("Nile")]
    assert exact_and_f1(["", "Nile", "", "Nile"], asked, True) == (0.5, 0.5)
    # An answer that is an article alone is, normalised, none: the others count, and of none left the empty one.
    assert exact_and_f1(["", ""], [of("the", "Nile"), of("the")], True) == (0.5, 0.5)
    assert token_f1("a", "the", True) == 1


def test_without_a_word_in_1_1():
    """1.1's script counts common words: none, though both are equal once normalised."""
    assert exact_and_f1(["a"], [of("the")], False) == (1, 0)
