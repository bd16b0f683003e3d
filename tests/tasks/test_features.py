"""Sequences of a task are what the tokenizer makes of its text."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tokenizing import KINDS, bert_like, gpt2_like
from transformers import DistilBertTokenizerFast

from distil.errors import ConfigError, DataError
from distil.tasks import features as module
from distil.tasks.catalogue import find
from distil.tasks.features import features_of
from distil.tasks.task import Examples

FIRST = ("The rain in Spain.", "so", "", "Über 9 rivers and the valley, the river " * 3)
SECOND = ("Who said so?", "the rain " * 20, "the plain", "")


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(module, "BATCH", 3)  # so that four examples are two


def examples(*texts: tuple[str, ...], labels: object = None) -> Examples:
    count = len(texts[0])
    labels = np.arange(count) % 2 if labels is None else np.array(labels)
    return Examples(tuple(map(str, range(count))), texts, labels, where="here.csv")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("texts", [(FIRST[:2],), (FIRST[3:],), (FIRST, SECOND)], ids=["single", "long", "pair"])
@pytest.mark.parametrize("max_length", [12, 40])
def test_equal_to_the_tokenizers_own(kind, texts, max_length):
    tokenizer = KINDS[kind]()
    task = find("mrpc" if len(texts) == 2 else "cola")
    found = features_of(task, examples(*texts), tokenizer, max_length)
    rows = tokenizer(*map(list, texts), truncation="longest_first", max_length=max_length, return_token_type_ids=True)
    assert [
        found.input_ids[a:b].tolist() for a, b in zip(found.starts, found.starts[1:], strict=False)
    ] == rows.input_ids
    assert found.token_types.tolist() == sum(rows.token_type_ids, [])
    assert found.labels.tolist() == (np.arange(len(texts[0])) % 2).tolist()
    assert found.examples.tolist() == list(range(len(found))) and found.offsets is None
    assert found.input_ids.dtype == found.token_types.dtype == np.int32
    assert found.lengths.max() == max_length or len(texts[0]) == 2 or max_length == 40


def test_types_of_the_second_text_do_not_rest_on_the_tokenizers_class():
    """DistilBERT takes none, but its teacher does."""
    bert = bert_like()
    student = DistilBertTokenizerFast(vocab=bert.get_vocab())
    assert "token_type_ids" not in student("a", "b")
    ours, its = (features_of(find("mrpc"), examples(FIRST, SECOND), t) for t in (bert, student))
    assert np.array_equal(ours.input_ids, its.input_ids) and np.array_equal(ours.token_types, its.token_types)
    assert ours.token_types.max() == 1


def test_the_tasks_own_length_is_the_default():
    long = examples(("the " * 700,))
    assert features_of(find("cola"), long, bert_like()).lengths.tolist() == [128]
    assert features_of(find("imdb"), long, bert_like()).lengths.tolist() == [512]


def test_a_text_without_a_token_is_one_special_token():
    tokenizer = gpt2_like()
    found = features_of(find("cola"), examples(("", "rain")), tokenizer)
    assert found.lengths[0] == 1 and found.input_ids[0] == tokenizer.bos_token_id
    for name in ("bos_token", "eos_token", "unk_token"):
        setattr(tokenizer, name, None)
    with pytest.raises(DataError, match=r"here\.csv: example 0 has no token"):
        features_of(find("cola"), examples(("", "rain")), tokenizer)


def test_values_stay_values():
    values = np.array([0.25, 5], dtype=np.float32)
    found = features_of(find("stsb"), examples(FIRST[:2], SECOND[:2], labels=values), bert_like())
    assert found.labels.dtype == np.float32 and np.array_equal(found.labels, values)


@pytest.mark.parametrize(("name", "length"), [("cola", 2), ("mrpc", 4)])
def test_a_length_without_room_is_one_line(name, length):
    texts = (FIRST, SECOND)[: len(find(name).columns)]
    features_of(find(name), examples(*texts), bert_like(), length + 1)
    with pytest.raises(ConfigError, match=f"max_length is {length}; with . special tokens there is no room"):
        features_of(find(name), examples(*texts), bert_like(), length)


def test_equal_twice():
    one, two = (features_of(find("mrpc"), examples(FIRST, SECOND), bert_like()) for _ in range(2))
    for field in dataclasses.fields(one):
        assert np.array_equal(getattr(one, field.name), getattr(two, field.name)), field.name
