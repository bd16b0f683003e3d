"""What ``launch/binarize.py`` does: each command yields the lines that it prints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from distil.data import joining, sources, trimming
from distil.data.binarize import binarize
from distil.data.inspection import inspect
from distil.data.store import Store
from distil.data.tokenizer import fingerprint, load_tokenizer
from distil.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def build_store(
    text: list[str] | None,
    dataset: str | None,
    dataset_config: str | None,
    split: str,
    streaming: bool,
    text_field: str,
    join: str,
    tokenizer: str,
    out: str,
    **how: Any,
) -> Iterator[str]:
    """Tokenise files or a data set; ``how`` are further arguments of ``binarize``."""
    rows = {"text_field": text_field, "join": join}
    if text:
        found = sources.files(text, **rows)
    else:
        found = [sources.dataset(dataset, dataset_config, split, streaming=streaming, **rows)]
    yield f"{out}: done\n{binarize(found, load_tokenizer(tokenizer), out, **how)}"


def _adopt_plain(prefixes: list[str], tokenizer: str | None) -> Iterator[str]:
    """Where a tokenizer is given, make plain pairs stores by it and hold finished stores against it."""
    if tokenizer is None:
        return
    loaded = load_tokenizer(tokenizer)
    for prefix in prefixes:
        if joining.is_plain(prefix):
            joining.adopt(prefix, loaded)
            yield f"{prefix}: adopted, with tokenizer {tokenizer}"
        else:
            Store.open(prefix).check_tokenizer(fingerprint(loaded), tokenizer)


def inspect_store(prefixes: list[str], tokenizer: str | None) -> Iterator[str]:
    """Describe a store, with its own tokenizer where that can be had."""
    yield from _adopt_plain(prefixes, tokenizer)
    store = Store.open(prefixes[0])
    loaded: PreTrainedTokenizerFast | None = None
    try:
        loaded = load_tokenizer(tokenizer or store.meta.tokenizer["name"])
        store.check_tokenizer(fingerprint(loaded), str(loaded.name_or_path))
    except DataError as error:
        if tokenizer is not None:
            raise
        loaded = None
        yield f"tokens are shown as ids: {error}; give its folder with --tokenizer\n"
    yield from inspect(store, loaded)


def verify_stores(prefixes: list[str], tokenizer: str | None) -> Iterator[str]:
    """Read every store whole."""
    yield from _adopt_plain(prefixes, tokenizer)
    for prefix in prefixes:
        store = Store.open(prefix)
        store.verify()
        yield f"{prefix}: whole: {len(store):,} sequences, {store.tokens:,} tokens, fingerprint {store.fingerprint}"


def merge_stores(prefixes: list[str], tokenizer: str | None, out: str, overwrite: bool) -> Iterator[str]:
    """Join stores into one."""
    yield from _adopt_plain(prefixes, tokenizer)
    store = joining.merge(prefixes, out, overwrite)
    yield f"{out}: done: {len(store):,} sequences, {store.tokens:,} tokens of {len(prefixes)} stores"


def adopt_store(prefixes: list[str], tokenizer: str, overwrite: bool) -> Iterator[str]:
    """Give a plain .bin/.idx pair what makes it a store."""
    store = joining.adopt(prefixes[0], load_tokenizer(tokenizer), overwrite)
    yield f"{prefixes[0]}: a store: {len(store):,} sequences, {store.tokens:,} tokens"


def trim_tokenizer(
    prefixes: list[str], tokenizer: str, min_count: int, keep: int | None, out: str, overwrite: bool
) -> Iterator[str]:
    """Write a tokenizer of the ids that a store uses."""
    yield from _adopt_plain(prefixes, tokenizer)
    loaded = load_tokenizer(tokenizer)
    trimmed = trimming.trim(Store.open(prefixes[0]), loaded, min_count, keep)
    trimming.save(trimmed, out, tokenizer, overwrite)
    yield f"{out}: {trimming.described(trimmed, loaded)}"


COMMANDS: dict[str, Callable[..., Iterator[str]]] = {
    "build": build_store, "inspect": inspect_store, "verify": verify_stores, "merge": merge_stores,
    "adopt": adopt_store, "trim": trim_tokenizer,
}  # fmt: skip
