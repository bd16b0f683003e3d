"""Ids by way of words are the ids of whole texts, for every text; other tokenizers are asked for whole texts."""

from __future__ import annotations

import json
import string
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from letters import NUMBER, letters, tokenizer_of_letters
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertTokenizerFast

from distil.data import words
from distil.data.words import Encoder, by_word

# Pieces of words, so that WordPiece has something to do; accents, Greek with its final sigma, Chinese.
PIECES = [*string.ascii_lowercase, *(f"##{c}" for c in string.ascii_lowercase), "the", "##ing", "é", "##é", "σ", "ς",
          "##σ", "##ς", "日", "本", ".", ",", "'", "-", "[", "]", "/", "##1", "1", "!"]  # fmt: skip
VOCABULARY = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *PIECES])}
# What normalizers and pre-tokenizers treat in their own ways: white space of all kinds, marks that combine, controls,
# letters that change their length in lower case, special tokens, characters beyond 16 bits.
ODD = ["The", "singing", "ÉTÉ", "e\u0301", "\u0301", "ΟΔΟΣ", "Σ", "日本", "[MASK]", "[SEP]x", "[", "\t", "\r", "\n",
       "\x0b", "\x1c", "\u00a0", "\u2028", "\u3000", "\u200b", "\x00", "\ufffd", "\u00ad", "İ", "ß", "ﬁ", "🙂",
       "a" * 120, " ", "  ", "don't", "1,000.11", "ab-cd", "\ufeff"]  # fmt: skip
TEXT = st.lists(st.one_of(st.sampled_from(ODD), st.text(max_size=6)), max_size=30).map("".join)


def tokenizer(lowercase: bool, accents: bool | None = None) -> str:
    """A serialised tokenizer of BERT's kind."""
    made = BertTokenizerFast(vocab=VOCABULARY, do_lower_case=lowercase, strip_accents=accents)
    return made.backend_tokenizer.to_str()


ENCODERS = {
    "uncased": Encoder(tokenizer(True), np.dtype(np.uint16)),
    "cased": Encoder(tokenizer(False), np.dtype(np.int32)),
    "accents kept": Encoder(tokenizer(True, False), np.dtype(np.uint16)),
}


@pytest.mark.parametrize("name", ENCODERS)
@settings(max_examples=400, deadline=None)
@given(texts=st.lists(TEXT, min_size=1, max_size=4))
def test_words_give_the_ids_of_the_whole(name, texts):
    encoder = ENCODERS[name]
    texts = [text for text in texts if text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)] or [""]
    ids, counts = encoder.encode(texts)
    wanted = [encoded.ids for encoded in encoder.backend.encode_batch_fast(texts, add_special_tokens=False)]
    assert counts.tolist() == list(map(len, wanted))
    assert ids.tolist() == [i for one in wanted for i in one]


def test_a_word_is_asked_for_once(monkeypatch):
    encoder = Encoder(tokenizer_of_letters().backend_tokenizer.to_str(), np.dtype(np.uint16))
    asked: Counter[str] = Counter()
    real = encoder._words._backend

    class Counting:
        def encode(self, word: str, **how: bool) -> object:
            asked[word] += 1
            return real.encode(word, **how)

    encoder._words._backend = Counting()
    text = letters(1000)
    found = encoder.encode([text, text])[0]
    assert found.tolist() == [NUMBER[letter] for letter in text.split()] * 2
    assert set(asked) == set(text.split()) and set(asked.values()) == {1}
    long = "x" * (words.WORD_CHARACTERS + 1)
    encoder.encode([f"{long} {long}"])
    assert asked[long] == 2  # one that hardly comes again is not kept


def test_memory_of_words_is_bounded(monkeypatch):
    monkeypatch.setattr(words, "WORDS", 10)
    encoder = Encoder(tokenizer_of_letters().backend_tokenizer.to_str(), np.dtype(np.uint16))
    text = letters(500)
    assert encoder.encode([text])[0].tolist() == [NUMBER[letter] for letter in text.split()]
    assert len(encoder._words) <= 10 and len(encoder._words._older) <= 10
    assert encoder.encode(["a b", "a"])[0].tolist() == [NUMBER["a"], NUMBER["b"], NUMBER["a"]]


@pytest.mark.parametrize("text", ["a\ud800b", "ab \udfff"])
def test_lone_surrogates_are_refused(text):
    with pytest.raises((TypeError, UnicodeEncodeError)):
        ENCODERS["uncased"].encode([text])


def test_only_tokenizers_of_bert_s_kind_go_by_words():
    assert by_word(tokenizer(True)) and by_word(tokenizer(False))
    spaced = json.loads(tokenizer(True))
    spaced["added_tokens"].append({**spaced["added_tokens"][0], "id": 200, "content": "two words"})
    assert not by_word(json.dumps(spaced))
    byte_level = Tokenizer(models.BPE({"a": 0, "Ġ": 1, "Ġa": 2}, [("Ġ", "a")]))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert not by_word(byte_level.to_str())
    encoder = Encoder(byte_level.to_str(), np.dtype(np.uint16))
    ids, counts = encoder.encode(["a a", "a"])
    assert ids.tolist() == [0, 2, 0] and counts.tolist() == [2, 1]  # by words it would be 0, 0, 0


def test_a_very_long_text_goes_in_portions(monkeypatch):
    byte_level = Tokenizer(models.BPE({"a": 0, "Ġ": 1, "Ġa": 2}, [("Ġ", "a")]))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder = Encoder(byte_level.to_str(), np.dtype(np.uint16))
    text = " ".join("a" * 300)
    whole = encoder.encode([text])[0]
    monkeypatch.setattr(words, "TEXT_CHARACTERS", 50)
    assert encoder.encode([text, "a"])[0].tolist() == [*whole.tolist(), 0]
