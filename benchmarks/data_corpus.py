"""A synthetic corpus of 10^9 tokens with the lengths of sentences and paragraphs, and batches of it."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import numpy as np

from distil.data.batch import Batcher
from distil.data.draft import Draft
from distil.data.lengths import Lengths
from distil.data.masking import Masker
from distil.data.mixture import Mixture
from distil.data.store import Store
from distil.data.store_meta import Origin
from distil.data.store_writer import StoreWriter

TOKENS = 10**9
MEAN, SIGMA, SHORTEST, LONGEST = 70.0, 0.6, 5, 512  # of the log-normal distribution of lengths, and where it is cut
VOCABULARY, FIRST_ORDINARY = 30_522, 1000
SPECIAL = {"pad": 0, "unk": 100, "cls": 101, "sep": 102, "mask": 103}
BUDGET, SEED = 8 * 512, 56
BLOCK = 1 << 16  # sequences appended at a time
MEDIAN = MEAN / np.exp(SIGMA**2 / 2)
IN_WORDS = f"log-normal, mean {MEAN:.0f}, sigma {SIGMA}, {SHORTEST} to {LONGEST} tokens"


def lengths_of(sequences: int) -> Lengths:
    """How so many sequences would be spread over lengths, without drawing any."""
    rng = np.random.default_rng(0)
    drawn = np.bincount(_sizes(rng, 1 << 22))
    counts = np.floor(drawn * (sequences / drawn.sum())).astype(np.int64)
    counts[np.argmax(counts)] += sequences - counts.sum()
    return Lengths.of((length, counts[length]) for length in np.flatnonzero(counts))


def store(folder: Path) -> Path:
    """Prefix of the store in a folder; written on the first call."""
    prefix = folder / "synthetic"
    if not Path(f"{prefix}.json").exists():
        began = time.perf_counter()
        tokens = _write(prefix)
        print(f"wrote {tokens:,} tokens in {time.perf_counter() - began:.0f} s", flush=True)
    return prefix


def _write(prefix: Path) -> int:
    """Returns how many tokens the store holds: TOKENS, and the rest of the last block."""
    rng = np.random.default_rng(0)
    ids = _zipf(rng, 1 << 24)
    origin = Origin({"name": "synthetic", "fingerprint": "0" * 64}, SPECIAL, VOCABULARY, LONGEST)
    with Draft({"store": str(prefix)}) as draft, closing(StoreWriter(draft, "store", origin)) as writer:
        while writer.tokens < TOKENS:
            sizes = _sizes(rng, BLOCK).astype(np.int32)
            ends = np.cumsum(sizes)
            start = rng.integers(len(ids) - ends[-1])
            block = ids[start : start + ends[-1]].copy()
            block[ends - sizes] = SPECIAL["cls"]
            block[ends - 1] = SPECIAL["sep"]
            writer.append(block, sizes)
        writer.seal()
        draft.publish()
        return writer.tokens


def _sizes(rng: np.random.Generator, count: int) -> np.ndarray:
    drawn = rng.lognormal(np.log(MEDIAN), SIGMA, count)
    return np.clip(drawn.round(), SHORTEST, LONGEST).astype(np.int64)


def _zipf(rng: np.random.Generator, count: int) -> np.ndarray:
    """Ordinary ids whose frequency falls as one over their rank."""
    shares = np.cumsum(1 / np.arange(1, VOCABULARY - FIRST_ORDINARY + 1))
    ranks = np.searchsorted(shares, rng.random(count) * shares[-1], side="right")
    return (FIRST_ORDINARY + ranks).astype(np.uint16)


def batcher(prefix: Path, smoothing: float) -> Batcher:
    """What assembles the store's micro-batches, opened anew, with masks as in the published recipe."""
    opened = Store.open(prefix)
    masker = Masker.from_counts(
        opened.token_counts, opened.meta.special_ids, fraction=0.15, smoothing=smoothing, mask_share=0.8,
        keep_share=0.1,
    )  # fmt: skip
    return Batcher(Mixture([opened], None, BUDGET, SEED), masker, SEED)
