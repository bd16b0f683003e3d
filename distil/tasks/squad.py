"""How answers are judged, by the rules of SQuAD (Rajpurkar et al. 2016, 2018).

Answers are compared without case, punctuation (ASCII's), the articles a, an, the, and spaces beyond one. Exact match
is equality of what is left, F1 that of the words as bags; of several right answers the best counts. In 2.0 no answer
is an answer: empty against empty is 1, empty against any other 0.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

from distil.tasks.task import Answer

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised(text: str) -> str:
    """What is compared of an answer."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(predicted: str, right: str) -> float:
    """1 where both are the same once normalised, else 0."""
    return float(normalised(predicted) == normalised(right))


def token_f1(predicted: str, right: str, unanswerable: bool = False) -> float:
    """F1 of the words; of two answers without a word 1 if ``unanswerable`` (2.0), 0 otherwise (1.1)."""
    predicted_words, right_words = normalised(predicted).split(), normalised(right).split()
    if unanswerable and not (predicted_words and right_words):
        return float(predicted_words == right_words)
    common = sum((Counter(predicted_words) & Counter(right_words)).values())
    return 2 * common / (len(predicted_words) + len(right_words)) if common else 0.0


def exact_and_f1(predicted: Sequence[str], answers: Sequence[Answer], unanswerable: bool) -> tuple[float, float]:
    """Mean exact match and F1, as fractions; an empty prediction says that there is no answer."""
    exact = overlap = 0.0
    for text, answer in zip(predicted, answers, strict=True):
        right = [one for one in answer.texts if normalised(one) or not unanswerable] or [""]
        exact += max(exact_match(text, one) for one in right)
        overlap += max(token_f1(text, one, unanswerable) for one in right)
    return exact / len(answers), overlap / len(answers)
