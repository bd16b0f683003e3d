"""Answers out of logits: against a search of all spans, across windows, and where there is none."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizing import KINDS

from distil.tasks.batch import Features
from distil.tasks.catalogue import find
from distil.tasks.features import features_of
from distil.tasks.metrics import score
from distil.tasks.spans import BEST, LONGEST, answers
from distil.tasks.task import Answer, Examples

CONTEXT = " ".join("abcdefghijklmnopqrstuvwxyz") + " "
TASK = replace(find("squad_v2"), stride=5, max_length=20)
TOKENIZERS = {kind: make() for kind, make in KINDS.items()}


def asked(*contexts: str) -> Examples:
    count = len(contexts)
    texts = (("so",) * count, contexts)
    return Examples(tuple(map(str, range(count))), texts, np.empty(0), (Answer((), ()),) * count)


def searched(found: Features, examples: Examples, starts: np.ndarray, ends: np.ndarray) -> list[tuple[float, str]]:
    """The best span of each example by looking at every pair, and its score."""
    best = [(-np.inf, "")] * len(examples)
    for i in range(len(found)):
        window = range(found.starts[i], found.starts[i + 1])
        limits = [sorted((logits[t] for t in window), reverse=True)[:BEST][-1] for logits in (starts, ends)]
        for a in window:
            for b in range(a, min(a + LONGEST, window.stop)):
                inside = found.offsets[a, 0] >= 0 and found.offsets[b, 0] >= 0
                total = float(starts[a]) + float(ends[b])
                example = found.examples[i]
                if inside and starts[a] >= limits[0] and ends[b] >= limits[1] and total > best[example][0]:
                    text = examples.texts[1][example][found.offsets[a, 0] : found.offsets[b, 1]]
                    best[example] = (total, text.strip())
    return best


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.sampled_from(list(KINDS)), st.sampled_from([20, 90]), st.booleans())
def test_equal_to_a_search_of_all_spans(seed, kind, max_length, ties):
    draw = np.random.default_rng(seed)
    examples = asked(CONTEXT, "r", "", CONTEXT * 2)
    found = features_of(replace(TASK, max_length=max_length), examples, TOKENIZERS[kind])
    starts, ends = draw.normal(size=(2, len(found.input_ids))).astype(np.float32)
    if ties:
        starts, ends = np.round(starts), np.round(ends)
    best = searched(found, examples, starts, ends)
    assert answers(found, examples, starts, ends) == [text for _, text in best]
    firsts = found.starts[:-1]
    none = [min((starts + ends)[firsts[found.examples == i]]) for i in range(len(examples))]
    sure = [i for i in range(len(examples)) if abs(none[i] - best[i][0]) > 1e-5]  # float32's rounding of the sum
    with_none = answers(found, examples, starts, ends, unanswerable=True)
    expected = ["" if none[i] > best[i][0] else best[i][1] for i in range(len(examples))]
    assert [with_none[i] for i in sure] == [expected[i] for i in sure]


def logits(found: Features) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros(len(found.input_ids)), np.zeros(len(found.input_ids))


def places(found: Features, character: int) -> np.ndarray:
    """The tokens, one in each window that shows it, of this character of the context."""
    return np.flatnonzero(found.offsets[:, 0] == character)


def test_the_best_window_wins():
    found = features_of(TASK, asked(CONTEXT), TOKENIZERS["bert"])
    starts, ends = logits(found)
    shown = places(found, 2 * 12)  # "m", which two windows show
    assert len(shown) == 2
    starts[shown], ends[shown] = (3, 5), (3, 2)
    assert answers(found, asked(CONTEXT), starts, ends) == ["m"]
    ends[places(found, 2 * 14)[0]] = 4.5  # "o", seen from the first: 3 + 4.5 is more than 5 + 2
    assert answers(found, asked(CONTEXT), starts, ends) == ["m n o"]


def test_a_span_has_a_limit_and_does_not_run_backwards():
    found = features_of(replace(TASK, max_length=90), asked(CONTEXT * 2), TOKENIZERS["bert"])
    assert len(found) == 1
    starts, ends = logits(found)
    first = places(found, 0)[0]
    starts[first], ends[first + LONGEST] = 9, 9  # one token too many
    ends[first + LONGEST - 1] = 1
    assert answers(found, asked(CONTEXT * 2), starts, ends) == [CONTEXT[:51] + " a b c d"]
    starts[:], ends[:] = 0, 0
    starts[first + 3], ends[first + 2], ends[first + 4] = 9, 9, 1
    assert answers(found, asked(CONTEXT * 2), starts, ends) == ["d e"]


def test_the_question_answers_nothing():
    found = features_of(TASK, asked(CONTEXT), TOKENIZERS["bert"])
    starts, ends = logits(found)
    starts[1], ends[1] = 50, 50
    starts[places(found, 4)[0]] = ends[places(found, 4)[0]] = 1
    assert answers(found, asked(CONTEXT), starts, ends) == ["c"]


def test_no_answer_by_the_window_that_is_least_sure_of_it():
    found = features_of(TASK, asked(CONTEXT), TOKENIZERS["bert"])
    starts, ends = logits(found)
    starts[places(found, 0)], ends[places(found, 0)] = 2, 2
    firsts = found.starts[:-1]
    starts[firsts], ends[firsts] = 3, 3
    says = lambda **how: answers(found, asked(CONTEXT), starts, ends, **how)
    assert says() == ["a"] and says(unanswerable=True) == [""]
    starts[firsts[1]] = -1  # one of several windows: 2, less than 4
    assert says(unanswerable=True) == ["a"]


def test_labels_as_logits_are_full_marks():
    """What features say of the right answer, read back by answers and scored: 1."""
    texts = (("who", "what"), ("the rain in the river, and a plain", CONTEXT * 2))
    right = (Answer(("a plain",), (27,)), Answer(("r s t",), (34,)))
    examples = Examples(("0", "1"), texts, np.empty(0), right)
    for kind, tokenizer in TOKENIZERS.items():
        found = features_of(TASK, examples, tokenizer)
        starts, ends = logits(found)
        for i in np.flatnonzero(found.labels.any(axis=1)):
            starts[found.starts[i] + found.labels[i, 0]] = ends[found.starts[i] + found.labels[i, 1]] = 5
        assert score(TASK, answers(found, examples, starts, ends, True), examples) == {"exact_match": 1, "f1": 1}, kind


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_logits_of_nothing_answer_nothing(value):
    found = features_of(TASK, asked(CONTEXT), TOKENIZERS["bert"])
    assert answers(found, asked(CONTEXT), *(np.full(len(found.input_ids), value),) * 2) == [""]
