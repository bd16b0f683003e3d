"""Tokenizers: load a fast one, name what decides its ids, find its special tokens."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from distil.errors import DataError
from distil.hub import pinned

if TYPE_CHECKING:  # importing transformers takes seconds, which --help and a refusal need not wait for
    from transformers import PreTrainedTokenizerFast

# Families without [CLS] and [SEP] open and close a sequence with other tokens.
_SPECIAL = {
    "pad": ("pad_token_id",),
    "unk": ("unk_token_id",),
    "cls": ("cls_token_id", "bos_token_id"),
    "sep": ("sep_token_id", "eos_token_id"),
    "mask": ("mask_token_id",),
}


def load_tokenizer(name_or_dir: str | Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer in a local folder or of that name on the hub; no remote code is run.

    Raises DataError if there is none, if it is damaged, if it is slow only, or if it has no vocabulary.
    """
    from transformers import AutoTokenizer

    name = str(name_or_dir)
    if not Path(name).is_dir() and (Path(name).exists() or name.startswith(("/", ".", "~"))):
        raise DataError(f"{name}: no such folder; name a tokenizer's folder or its name on the hub")
    plain, revision = pinned(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(plain, revision=revision, use_fast=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - what a damaged folder raises depends on the file and the version
        where = "tokenizer folder" if Path(name).is_dir() else "no such folder, and on the hub"
        reason = f"{type(error).__name__}: {error}"[:300]
        raise DataError(f"{name}: no tokenizer loads ({where}: {reason}); it needs a whole tokenizer.json") from error
    if not tokenizer.is_fast:
        raise DataError(
            f"{name}: {type(tokenizer).__name__} is a slow tokenizer; convert it to one with tokenizer.json"
        )
    # A folder with a config.json alone loads "successfully", as a vocabulary of nothing but special tokens.
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise DataError(f"{name}: its vocabulary holds special tokens only; add the tokenizer.json or vocab.txt")
    return tokenizer


def special_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Ids of the special tokens it has, under pad, unk, cls, sep, mask; cls and sep may be its bos and eos."""
    found = {}
    for key, attributes in _SPECIAL.items():
        ids = [i for attribute in attributes if (i := getattr(tokenizer, attribute)) is not None]
        if ids:
            found[key] = int(ids[0])
    return found


def vocab_size(tokenizer: PreTrainedTokenizerFast) -> int:
    """One more than its largest id, so that gaps in the numbering, which ``len`` overlooks, do no harm."""
    return max(tokenizer.get_vocab().values()) + 1


def fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """64 hex digits: sha256 over all that decides which ids a text gets, and over nothing else.

    That is vocabulary, merges and model settings, added and special tokens, normalizer and pre-tokenizer. Truncation
    and padding are left out because any call may set them, the name and the post-processor because no id rests on them.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = {key: backend[key] for key in ("model", "added_tokens", "normalizer", "pre_tokenizer")}
    parts["special_ids"] = special_ids(tokenizer)
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
