"""A tokenizer of part of a vocabulary: the tokens that a store uses, and what it takes to spell all the others.

Shapes: V ids of the tokenizer, V' that are kept. Ids keep their order and are numbered anew from 0, without gaps.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distil.data.store import Store, refusing
from distil.data.tokenizer import fingerprint, vocab_size
from distil.errors import ConfigError, DataError
from distil.folder import building

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BYTE = re.compile("<0x[0-9A-F]{2}>")
_FILES = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"}
# What a tokenizer's class knows and its tokenizer.json does not.
_SETTINGS = (
    "model_max_length", "model_input_names", "padding_side", "truncation_side", "clean_up_tokenization_spaces",
    "chat_template",
)  # fmt: skip


@dataclass(frozen=True)
class Trimmed:
    """The smaller tokenizer; its id i was ``ids[i]``, int64 (V',), of which ``by_count`` were chosen by their counts.

    ``covered`` is the share of the store's tokens that are among them, from 0 to 1.
    """

    tokenizer: PreTrainedTokenizerFast
    ids: np.ndarray
    by_count: int
    covered: float


def trim(store: Store, tokenizer: PreTrainedTokenizerFast, min_count: int = 1, keep: int | None = None) -> Trimmed:
    """The store's tokenizer with the ids alone that occur ``min_count`` times, the ``keep`` most frequent of these.

    Special and added tokens stay, and whatever could be spelled can be spelled. Raises ConfigError for numbers below
    1, DataError for another tokenizer than the store's, one of an unknown kind, or where no id occurs often enough.
    """
    for name, value in (("min_count", min_count), ("keep", keep)):
        if value is not None and value < 1:
            raise ConfigError(f"--{name} {value}: give a number from 1 on")
    store.check_tokenizer(fingerprint(tokenizer), str(tokenizer.name_or_path))
    counts_V = store.token_counts
    by_count = np.argsort(-counts_V, kind="stable")  # ties by id
    by_count = by_count[counts_V[by_count] >= min_count][:keep]
    if by_count.size == 0:
        raise DataError(
            f"{store.prefix}: no token occurs {min_count:,} times, the most frequent one {counts_V.max():,} times; "
            "choose a smaller --min_count"
        )
    smaller, ids = restricted(tokenizer, set(by_count.tolist()))
    return Trimmed(smaller, ids, by_count.size, float(counts_V[ids].sum() / counts_V.sum()))


def restricted(tokenizer: PreTrainedTokenizerFast, wanted: set[int]) -> tuple[PreTrainedTokenizerFast, np.ndarray]:
    """A tokenizer of the ``wanted`` ids and those it cannot be without, and the old ids by their new ones, (V',).

    A text all of whose tokens are kept gets the same tokens. Raises DataError for a model other than WordPiece, BPE
    and Unigram, or one whose ids cannot be numbered anew.
    """
    from tokenizers import Tokenizer

    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    model, vocabulary = parts["model"], tokenizer.get_vocab()
    if model["type"] not in _COMPLETE:
        known = ", ".join(_COMPLETE)
        raise DataError(f"{tokenizer.name_or_path}: tokenizers of kind {model['type']} cannot be trimmed, only {known}")
    kept = wanted | set(tokenizer.all_special_ids) | {token["id"] for token in parts["added_tokens"]}
    _with_ids(parts["post_processor"], lambda id_: kept.add(id_) or id_)  # only looks
    kept = _COMPLETE[model["type"]](model, kept & set(vocabulary.values()))
    number = {old: new for new, old in enumerate(sorted(kept))}
    _restrict_model(model, number)
    parts["added_tokens"] = [{**token, "id": number[token["id"]]} for token in parts["added_tokens"]]
    parts["post_processor"] = _with_ids(parts["post_processor"], number.__getitem__)
    parts["padding"] = parts["truncation"] = None  # any call may have set them, padding with an id of old
    smaller = _like(tokenizer, Tokenizer.from_str(json.dumps(parts)))
    if smaller.get_vocab() != {token: number[id_] for token, id_ in vocabulary.items() if id_ in number}:
        # Added tokens have no ids of their own in a tokenizer.json: they come after all others, or are among them.
        raise DataError(
            f"{tokenizer.name_or_path}: its ids cannot be numbered anew: a token stands twice, or among gaps"
        )
    return smaller, np.array(sorted(kept), dtype=np.int64)


def save(trimmed: Trimmed, out: str | Path, source: str | Path, overwrite: bool = False) -> None:
    """Write the tokenizer's folder, whole or not at all.

    Raises ConfigError where ``out`` is the folder that the tokenizer came from, DataError where it exists and is not
    to be replaced, or is something other than a tokenizer's folder.
    """
    folder = Path(out)
    if os.path.realpath(out) == os.path.realpath(source):
        raise ConfigError(f"trim cannot write {out}, which it reads; choose another --out")
    with refusing(out, "write", "choose another --out"):
        if folder.exists() and not overwrite:
            raise DataError(f"{out}: exists already; pass --overwrite, or choose another --out")
        if folder.exists() and not folder.is_dir():
            raise DataError(f"{out}: a file, where a folder is to be; choose another --out")
        others = sorted(set(os.listdir(folder)) - _FILES) if folder.exists() else []
        if others:
            raise DataError(f"{out}: holds more than a tokenizer, such as {others[0]}; choose another --out")
        with building(folder, replace=overwrite) as draft:
            trimmed.tokenizer.save_pretrained(draft)


def described(trimmed: Trimmed, before: PreTrainedTokenizerFast) -> str:
    """What was kept, in a line."""
    rest = len(trimmed.ids) - trimmed.by_count
    return (
        f"{len(trimmed.ids):,} of {vocab_size(before):,} ids: {trimmed.by_count:,} for their counts, {rest:,} more as "
        f"special tokens or to spell the others; they are {100 * trimmed.covered:.3f} % of the store's tokens"
    )


# --- what each kind of model needs ---------------------------------------------------------------------------------


def _complete_wordpiece(model: dict[str, Any], kept: set[int]) -> set[int]:
    vocabulary, prefix = model["vocab"], model["continuing_subword_prefix"]

    def spelled(token: str) -> list[str]:
        inner = token.startswith(prefix) and len(token) > len(prefix)
        letters = token[len(prefix) :] if inner else token
        return [prefix + letter if inner or place else letter for place, letter in enumerate(letters)]

    needed = {id_ for token, id_ in vocabulary.items() if _irreplaceable(spelled(token), vocabulary)}
    return kept | needed | _unknown(model)


def _complete_unigram(model: dict[str, Any], kept: set[int]) -> set[int]:
    pieces, scores = zip(*model["vocab"], strict=True)
    known = set(pieces)
    needed = {i for i, piece in enumerate(pieces) if _irreplaceable(list(piece), known) or _BYTE.fullmatch(piece)}
    needed.add(scores.index(min(scores)))  # an unknown character costs a little more than the worst piece
    return kept | needed | ({model["unk_id"]} - {None})


def _complete_bpe(model: dict[str, Any], kept: set[int]) -> set[int]:
    vocabulary = model["vocab"]
    prefix, suffix = model["continuing_subword_prefix"] or "", model["end_of_word_suffix"] or ""
    symbols = (t for t in vocabulary if len(t.removeprefix(prefix).removesuffix(suffix)) <= 1 or _BYTE.fullmatch(t))
    kept = kept | {vocabulary[symbol] for symbol in symbols} | _unknown(model)
    parts_of = defaultdict(set)
    for left, right, whole in _merges(model):
        parts_of[vocabulary[whole]] |= {vocabulary[left], vocabulary[right]}
    # All ways to a kept token are kept, so that a text takes the merges it took before.
    to_do = list(kept)
    while to_do:
        new = parts_of[to_do.pop()] - kept
        kept |= new
        to_do += new
    return kept


_COMPLETE: dict[str, Callable[[dict[str, Any], set[int]], set[int]]] = {
    "WordPiece": _complete_wordpiece, "BPE": _complete_bpe, "Unigram": _complete_unigram,
}  # fmt: skip


def _irreplaceable(spelled: list[str], known: set[str] | dict[str, int]) -> bool:
    """Whether a token is a single character, or has one that no token of a single character stands for."""
    return len(spelled) == 1 or not all(letter in known for letter in spelled)


def _unknown(model: dict[str, Any]) -> set[int]:
    return {model["vocab"][model["unk_token"]]} if model["unk_token"] in model["vocab"] else set()


def _merges(model: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Left part, right part and result of each merge."""
    inner = len(model["continuing_subword_prefix"] or "")
    for merge in model["merges"]:
        yield merge[0], merge[1], merge[0] + merge[1][inner:]


def _restrict_model(model: dict[str, Any], number: dict[int, int]) -> None:
    """Leave a model, in place, the ids in ``number``, under their new numbers."""
    if model["type"] == "Unigram":
        model["vocab"] = [piece for i, piece in enumerate(model["vocab"]) if i in number]
        model["unk_id"] = number.get(model["unk_id"])
        return
    vocabulary = {token: number[id_] for token, id_ in model["vocab"].items() if id_ in number}
    if model["type"] == "BPE":
        model["merges"] = [
            merge
            for merge, tokens in zip(model["merges"], _merges(model), strict=True)
            if vocabulary.keys() >= {*tokens}
        ]
    model["vocab"] = vocabulary


def _with_ids(processor: dict[str, Any] | None, change: Callable[[int], int]) -> dict[str, Any] | None:
    """A post-processor with every id in it changed; those of kinds without ids as they are."""
    kind = processor and processor["type"]
    if kind == "Sequence":
        return {**processor, "processors": [_with_ids(each, change) for each in processor["processors"]]}
    if kind in ("BertProcessing", "RobertaProcessing"):
        return {**processor, **{end: [processor[end][0], change(processor[end][1])] for end in ("sep", "cls")}}
    if kind == "TemplateProcessing":
        tokens = {
            name: {**token, "ids": [change(id_) for id_ in token["ids"]]}
            for name, token in processor["special_tokens"].items()
        }
        return {**processor, "special_tokens": tokens}
    return processor


def _like(tokenizer: PreTrainedTokenizerFast, backend: Any) -> PreTrainedTokenizerFast:
    """A tokenizer around a backend with another's special tokens and settings.

    It is of no model's own class: some of these build the backend anew, from files or defaults, when they are loaded.
    """
    from transformers import PreTrainedTokenizerFast

    settings = {name: getattr(tokenizer, name) for name in _SETTINGS if getattr(tokenizer, name, None) is not None}
    settings |= {"extra_special_tokens": tokenizer.extra_special_tokens, **tokenizer.special_tokens_map}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **settings)
