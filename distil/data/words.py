"""Texts to ids by way of their words: the tokenizer is asked once for each word that occurs, not each time it does.

A tokenizer of BERT's kind (BertNormalizer, BertPreTokenizer, WordPiece) looks at one character at a time until it has
cut a text at its spaces, and at one word at a time after that. So the ids of a text are those of its words one after
the other, and since most words of a text are old acquaintances, a dictionary gives most of them. Other tokenizers are
asked for whole texts.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Iterator
from typing import Any

import numpy as np

WORDS = 1 << 17  # of each of two generations: memory stays flat, and words that come often are never forgotten
WORD_CHARACTERS = 32  # longer ones hardly come again
_PARTS = re.compile(r"[!-/:-@\[-`{-~]|[^!-/:-@\[-`{-~]+")  # single marks of ASCII punctuation, and what is between
TEXT_CHARACTERS = 1 << 19  # what a tokenizer keeps of a text takes a hundred times the room of its ids


class Encoder:
    """Ids of texts by a serialised fast tokenizer, neither truncated nor padded, without special tokens added."""

    def __init__(self, tokenizer: str, dtype: np.dtype) -> None:
        from tokenizers import Tokenizer

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # there are as many processes as there are to be
        self.backend = Tokenizer.from_str(tokenizer)
        self.backend.no_truncation()
        self.backend.no_padding()
        self._dtype = dtype
        added = json.loads(tokenizer)["added_tokens"]
        self._words = _Words(self.backend, dtype, added) if by_word(tokenizer) else None

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Ids of all texts back to back, and how many each has, int64 (B,).

        Raises TypeError or UnicodeEncodeError, as the tokenizer does, for a text that is no Unicode.
        """
        if self._words is not None:
            word = self._words.__getitem__
            # To this kind of tokenizer a line's end is a space. Other white space stays within its word, which the
            # tokenizer then cuts.
            parts = [b"".join(map(word, text.replace("\n", " ").split(" "))) for text in texts]
            counts = np.fromiter(map(len, parts), np.int64, len(parts)) // self._dtype.itemsize
            return np.frombuffer(b"".join(parts), self._dtype), counts
        ids = [np.array(one, self._dtype) for one in self._whole(texts)]
        return np.concatenate(ids), np.fromiter(map(len, ids), np.int64, len(ids))

    def _whole(self, texts: list[str]) -> Iterator[list[int]]:
        """Ids of each text; a very long one goes through the tokenizer in portions, cut at spaces."""
        if sum(map(len, texts)) < 2 * TEXT_CHARACTERS:
            yield from (found.ids for found in self.backend.encode_batch_fast(texts, add_special_tokens=False))
            return
        for text in texts:
            ids: list[int] = []
            for portion in _portions(text):
                ids += self.backend.encode(portion, add_special_tokens=False).ids
            yield ids


class _Words(dict[str, bytes]):
    """The ids of words, as bytes; of a word that is not there the tokenizer is asked.

    BERT's pre-tokenizer takes every ASCII punctuation mark for a word of its own, so a new word is looked up by its
    parts, unless an added token such as [MASK] is in it, or might be found in it once it is normalised.
    """

    def __init__(self, backend: Any, dtype: np.dtype, added: list[dict[str, Any]]) -> None:
        super().__init__()
        self._backend, self._code = backend, dtype.char
        self._older: dict[str, bytes] = {}
        self._whole = [token["content"] for token in added]
        self._by_parts = not any(token["normalized"] for token in added)

    def __missing__(self, word: str) -> bytes:
        ids = self._older.get(word)
        if ids is None:
            ids = self._made(word)
        if len(word) <= WORD_CHARACTERS:
            if len(self) >= WORDS:
                self._older = dict(self)
                self.clear()
            self[word] = ids
        return ids

    def _made(self, word: str) -> bytes:
        parts = _PARTS.findall(word) if self._by_parts else []
        if len(parts) > 1 and not any(token in word for token in self._whole):
            return b"".join(map(self.__getitem__, parts))
        return array(self._code, self._backend.encode(word, add_special_tokens=False).ids).tobytes()


def by_word(tokenizer: str) -> bool:
    """Whether the ids of a text are those of its words between spaces, for a serialised tokenizer."""
    parts = json.loads(tokenizer)
    kinds = [(parts[name] or {}).get("type") for name in ("normalizer", "pre_tokenizer", "model")]
    spaced = any(any(map(str.isspace, token["content"])) for token in parts["added_tokens"])
    return kinds == ["BertNormalizer", "BertPreTokenizer", "WordPiece"] and not spaced


def _portions(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > TEXT_CHARACTERS:
        space = text.find(" ", start + TEXT_CHARACTERS)
        if space < 0:
            break
        yield text[start:space]
        start = space
    yield text[start:]
