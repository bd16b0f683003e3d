"""Stores made of what is there already: several joined into one, and plain .bin/.idx pairs given what they lack."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from distil.data.draft import Draft, refuse_heldout
from distil.data.store import Store, read_header, refusing
from distil.data.store_meta import SUFFIXES, Origin
from distil.data.store_writer import StoreWriter, seal, sizes_of
from distil.data.tokenizer import fingerprint, special_ids, vocab_size
from distil.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENS = 1 << 21  # copied at a time


def merge(prefixes: Sequence[str], out: str, overwrite: bool = False) -> Store:
    """Write the sequences of all stores, one store after the other, as one; memory stays flat.

    Raises DataError for stores of different tokenizers or with damage, and for what Store.open and StoreWriter refuse.
    """
    places = [os.path.realpath(prefix) for prefix in prefixes]
    if len(places) < 2 or len(set(places)) < len(places):
        raise ConfigError(f"merge takes two stores or more, each once, not {' '.join(prefixes)}")
    if os.path.realpath(out) in places:
        raise ConfigError(f"merge cannot write {out}, which it reads; choose another --out")
    stores = [Store.open(prefix) for prefix in prefixes]
    first = stores[0].meta
    for store in stores[1:]:
        store.check_tokenizer(first.tokenizer["fingerprint"], f"{first.tokenizer['name']} of {stores[0].prefix}")
    for store in stores:
        store.verify()  # or else damage would get checksums that agree with it
    out = str(Path(out))
    refuse_heldout(out)
    longest = max(store.meta.max_length for store in stores)
    origin = Origin(first.tokenizer, first.special_ids, first.vocab_size, longest)
    identity = {"merge": [store.fingerprint for store in stores]}
    with Draft({"store": out}, overwrite) as draft:
        if not draft.sealed_for(identity):
            draft.begin_anew(overwrite)
            _append_all(stores, StoreWriter(draft, "store", origin))
        draft.publish(identity)
    return Store.open(out)


def _append_all(stores: Sequence[Store], writer: StoreWriter) -> None:
    try:
        for store in stores:
            for ids, sizes in _runs(store):
                writer.append(ids, sizes)
        writer.seal()
    finally:
        writer.close()


def _runs(store: Store) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A store's sequences, some at a time, back to back: ids and sizes, empty ones left out."""
    width = np.dtype(store.meta.dtype).itemsize
    with refusing(store.prefix, "read", "check the disk"), open(f"{store.prefix}.bin", "rb") as file:
        for sizes in sizes_of(f"{store.prefix}.idx", len(store)):
            ends = np.cumsum(sizes, dtype=np.int64)
            start = 0
            while start < len(sizes):
                before = ends[start - 1] if start else 0
                end = max(start + 1, int(np.searchsorted(ends, before + TOKENS, side="right")))
                count = int(ends[end - 1] - before)
                ids = np.frombuffer(file.read(count * width), np.dtype(store.meta.dtype).newbyteorder("<"))
                some = sizes[start:end]
                yield ids, some[some > 0]
                start = end


def adopt(prefix: str, tokenizer: PreTrainedTokenizerFast, overwrite: bool = False) -> Store:
    """Make a store of a plain .bin/.idx pair, as Megatron-LM and GPT-NeoX write them: add order, counts and sidecar.

    Reads both files and changes neither. Raises DataError where they are damaged, or hold an id that is none of the
    tokenizer's.
    """
    prefix = str(Path(prefix))
    for suffix in (".bin", ".idx"):
        if not os.path.isfile(prefix + suffix):
            raise DataError(f"{prefix + suffix}: no such file; adopt takes the prefix of a .bin/.idx pair")
    if os.path.exists(prefix + ".json") and not overwrite:
        raise DataError(f"{prefix}.json: exists already: this is a store; pass --overwrite to adopt it anew")
    with refusing(prefix, "read", "check its permissions"):
        _, sequences, _ = read_header(Path(prefix + ".idx"))
        made_of = [[status.st_size, status.st_mtime_ns] for status in map(os.stat, (prefix + ".bin", prefix + ".idx"))]
        longest = max((int(sizes.max()) for sizes in sizes_of(prefix + ".idx", sequences)), default=0)
    identity = {"name": str(tokenizer.name_or_path), "fingerprint": fingerprint(tokenizer)}
    whole = {"adopt": identity, "pair": made_of}
    origin = Origin(identity, special_ids(tokenizer), vocab_size(tokenizer), longest)
    with Draft({"store": prefix}, overwrite=True) as draft:
        if not draft.sealed_for(whole):
            draft.begin_anew(overwrite)
            with draft.writing():
                seal(prefix + ".bin", prefix + ".idx", str(draft.path("store")), origin)
        draft.publish(whole)
    return Store.open(prefix)


def is_plain(prefix: str) -> bool:
    """Whether there is a .bin/.idx pair without a sidecar."""
    found = {suffix for suffix in SUFFIXES if os.path.isfile(prefix + suffix)}
    return {".bin", ".idx"} <= found and ".json" not in found
