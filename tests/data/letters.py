"""A tokenizer of one letter a token, and text for it."""

from __future__ import annotations

import random
import string
from pathlib import Path

from transformers import BertTokenizerFast

from distil.data.store import Store

NUMBER = {
    word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase])
}  # a letter a token; digits unknown
CLS, SEP = 2, 3


def tokenizer_of_letters() -> BertTokenizerFast:
    """The tokenizer."""
    return BertTokenizerFast(vocab=NUMBER)


def letters(count: int, seed: int = 0) -> str:
    """So many random letters, which are as many tokens."""
    return " ".join(random.Random(seed).choices(string.ascii_lowercase, k=count))


def stored(prefix: Path | str) -> list[list[int]]:
    """All sequences of a store."""
    store = Store.open(prefix)
    return [store.sequence(i).tolist() for i in range(len(store))]
