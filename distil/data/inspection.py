"""What a person wants to see of a store: sizes, lengths, common and rare tokens, a few sequences as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from distil.data.store import Store

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BARS, BAR_WIDTH = 16, 40
TOKENS, SAMPLES, SAMPLE_IDS = 12, 3, 60


def inspect(store: Store, tokenizer: PreTrainedTokenizerFast | None) -> Iterator[str]:
    """Lines that describe a store; without a tokenizer tokens are shown as ids. Reads no more than it shows."""
    yield from _sizes(store)
    yield ""
    yield from _histogram(store)
    yield ""
    yield from _tokens(store, tokenizer)
    yield ""
    yield from _samples(store, tokenizer)


def _sizes(store: Store) -> Iterator[str]:
    meta, sequences = store.meta, store.lengths.sequences
    special = ", ".join(f"{name} {i}" for name, i in sorted(meta.special_ids.items(), key=lambda item: item[1]))
    rows = {
        "store": store.prefix,
        "sequences": f"{len(store):,}"
        + (f", {len(store) - sequences:,} of them empty" if len(store) > sequences else ""),
        "tokens": f"{store.tokens:,}, {store.tokens / sequences:.1f} a sequence",
        "ids": f"{store.bytes / 2**20:,.1f} MiB of {meta.dtype}, vocabulary {meta.vocab_size:,}",
        "tokenizer": f"{meta.tokenizer['name']} ({meta.tokenizer['fingerprint'][:12]}); {special}",
        "fingerprint": store.fingerprint,
    }
    yield from (f"{name:<12}{text}" for name, text in rows.items())


def _histogram(store: Store) -> Iterator[str]:
    values_K, counts_K = store.lengths.values_K, store.lengths.counts_K
    width = -(-(store.lengths.longest) // BARS)
    bins = np.bincount((values_K - 1) // width, weights=counts_K, minlength=1).astype(np.int64)
    yield f"{'length':<12}{'sequences':>14}"
    for i, count in enumerate(bins.tolist()):
        span = f"{i * width + 1}-{min((i + 1) * width, store.lengths.longest)}"
        yield f"{span:<12}{count:>14,}  {'#' * round(BAR_WIDTH * count / bins.max())}".rstrip()


def _tokens(store: Store, tokenizer: PreTrainedTokenizerFast | None) -> Iterator[str]:
    counts_V = store.token_counts
    by_count = np.argsort(-counts_V, kind="stable")
    seen = by_count[counts_V[by_count] > 0]
    yield f"{len(seen):,} of {len(counts_V):,} ids occur"
    for name, ids in (("most often", seen[:TOKENS]), ("least often", seen[::-1][:TOKENS])):
        yield f"{name:<12}" + "  ".join(f"{_token(int(i), tokenizer)} {counts_V[i]:,}" for i in ids)


def _token(i: int, tokenizer: PreTrainedTokenizerFast | None) -> str:
    token = None if tokenizer is None else tokenizer.convert_ids_to_tokens(i)
    return str(i) if token is None else token


def _samples(store: Store, tokenizer: PreTrainedTokenizerFast | None) -> Iterator[str]:
    for number in np.linspace(0, len(store) - 1, min(SAMPLES, len(store))).astype(np.int64).tolist():
        ids = store.sequence(number)
        shown = ids[:SAMPLE_IDS].tolist()
        text = " ".join(map(str, shown)) if tokenizer is None else tokenizer.decode(shown)
        yield f"sequence {number:,}, {len(ids)} ids: {text}{' ...' if len(ids) > SAMPLE_IDS else ''}"
