"""Windows of a long context: the tokenizer's own, and the answer where it is whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizing import KINDS, bert_like

from distil.errors import ConfigError
from distil.tasks import windows
from distil.tasks.batch import Features
from distil.tasks.catalogue import find
from distil.tasks.features import features_of
from distil.tasks.task import Answer, Examples, Task
from distil.tasks.windows import LONGEST_QUESTION

CONTEXT = "The rain in Spain stays, mainly, in the plain;  the río — 東京 — runs to\tthe valley. Über 95% of it."
TOKENIZERS = {kind: make() for kind, make in KINDS.items()}


def task(stride: int = 4, max_length: int = 24) -> Task:
    return replace(find("squad"), stride=stride, max_length=max_length)


def asked(*rows: tuple[str, str, str | None]) -> Examples:
    """Examples of question, context and answer (its first place)."""
    answers = tuple(
        Answer((), ()) if answer is None else Answer((answer, "x"), (context.index(answer), 0))
        for _, context, answer in rows
    )
    texts = tuple(zip(*rows, strict=True))[:2]
    return Examples(tuple(map(str, range(len(rows)))), texts, np.empty(0), answers)


def said(found: Features, i: int, context: str) -> str | None:
    """The text between a window's labels."""
    first, last = found.labels[i] + found.starts[i]
    return None if first == last == found.starts[i] else context[found.offsets[first, 0] : found.offsets[last, 1]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("stride", "max_length"), [(4, 24), (0, 20), (9, 30), (60, 384)])
def test_equal_to_the_tokenizers_own(kind, stride, max_length, monkeypatch):
    monkeypatch.setattr(windows, "BATCH", 2)
    tokenizer = TOKENIZERS[kind]
    rows = [("who?", CONTEXT, "Spain"), ("", "rain", None), ("so", "", None), ("the río", CONTEXT * 3, "valley")]
    found = features_of(task(stride, max_length), asked(*rows), tokenizer)
    whole = tokenizer(
        *([row[i] for row in rows] for i in (0, 1)), truncation="only_second", max_length=max_length, stride=stride,
        return_overflowing_tokens=True, return_offsets_mapping=True, return_token_type_ids=True,
    )  # fmt: skip
    cuts = list(zip(found.starts, found.starts[1:], strict=False))
    assert [found.input_ids[a:b].tolist() for a, b in cuts] == whole["input_ids"]
    assert found.token_types.tolist() == sum(whole["token_type_ids"], [])
    assert found.examples.tolist() == whole["overflow_to_sample_mapping"]
    for i, (a, b) in enumerate(cuts):
        pairs = zip(whole["offset_mapping"][i], whole.sequence_ids(i), strict=True)
        assert found.offsets[a:b].tolist() == [list(pair) if text == 1 else [-1, -1] for pair, text in pairs]
    assert len(found) > 6 or max_length == 384


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "answer", ["The", "Spain", "Spain stays", "río — 東京", "東", "95%", "it.", "the valley. Über"]
)
def test_labels_give_the_answer_back(kind, answer):
    for max_length in (44, 300):
        shared = 18  # tokens, as many as any of the answers has, so that each is whole somewhere
        found = features_of(task(shared, max_length), asked(("so", CONTEXT, answer)), TOKENIZERS[kind])
        heard = [text for i in range(len(found)) if (text := said(found, i, CONTEXT)) is not None]
        assert heard and {text.strip() for text in heard} == {answer}
        assert max_length == 300 or len(heard) < len(found)


def test_an_answer_is_labelled_only_where_all_of_it_is_inside():
    context = " ".join("abcdefghijklmnopqrst")  # a token a letter
    for answer in ("c", "d e f", "b c d e f g"):
        found = features_of(task(stride=2, max_length=9), asked(("z", context, answer)), bert_like())  # five a window
        for i in range(len(found)):
            a, b = found.starts[i], found.starts[i + 1]
            shown = found.offsets[a:b][found.offsets[a:b, 0] >= 0]
            text = context[shown[0, 0] : shown[-1, 1]]
            assert said(found, i, context) == (answer if answer in text else None), (answer, text)
    assert found.labels.any() == False  # noqa: E712 - the last one is longer than any window


def test_places_count_from_the_windows_first_token():
    found = features_of(task(), asked(("so", "in the rain", "rain"), ("so", "in the rain", None)), bert_like())
    words = bert_like().convert_ids_to_tokens(found.input_ids[: found.starts[1]])
    assert words == ["[CLS]", "s", "##o", "[SEP]", "i", "##n", "the", "rain", "[SEP]"]
    assert found.labels.tolist() == [[7, 7], [0, 0]] and found.labels.dtype == np.int64


def test_a_long_question_is_cut():
    found = features_of(task(4, 200), asked(("a " * 100, CONTEXT, "Spain")), bert_like())
    assert (found.offsets[: found.starts[1], 0] < 0).sum() == LONGEST_QUESTION + 3
    assert "Spain" in {said(found, i, CONTEXT) for i in range(len(found))}


def test_no_room_for_the_stride_is_one_line():
    with pytest.raises(ConfigError, match="max_length of 24 leaves 11 tokens of context .* windows share 11"):
        features_of(task(11, 24), asked(("a", CONTEXT, None)), bert_like())
    assert len(features_of(task(10, 24), asked(("a", CONTEXT, None)), bert_like())) > 1


@settings(max_examples=50)
@given(st.integers(0, 60), st.integers(0, 12), st.integers(0, 6), st.integers(20, 40))
def test_windows_cover_a_context_and_share_what_they_should(tokens, question, stride, max_length):
    context = " ".join("abcde"[i % 5] for i in range(tokens))
    found = features_of(task(stride, max_length), asked(("q " * question, context, None)), bert_like())
    parts = []
    for a, b in zip(found.starts, found.starts[1:], strict=False):
        assert b - a <= max_length
        shown = found.offsets[a:b, 0]
        parts.append((shown[shown >= 0] // 2).tolist())  # a token every other character
    assert sorted(set(sum(parts, []))) == list(range(tokens))
    for one, two in zip(parts, parts[1:], strict=False):
        assert one[len(one) - stride :] == two[:stride] and len(two) > stride
