"""Small stores of sequences made on the spot, and maskers for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distil.data.draft import Draft
from distil.data.masking import Masker
from distil.data.mixture import Mixture
from distil.data.store import Store
from distil.data.store_meta import Origin
from distil.data.store_writer import StoreWriter

SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
VOCAB = 300


def build(prefix: Path, sequences: Sequence[np.ndarray]) -> Store:
    """A store of these sequences of ids."""
    origin = Origin({"name": "toy", "fingerprint": "f" * 64}, SPECIAL, VOCAB, max_length=4096)
    with Draft({"store": str(prefix)}) as draft:
        writer = StoreWriter(draft, "store", origin)
        writer.append(np.concatenate(sequences), np.array(list(map(len, sequences)), dtype=np.int32))
        writer.seal()
        draft.publish()
    return Store.open(prefix)


def texts(number: int, longest: int = 30, seed: int = 0) -> list[np.ndarray]:
    """So many sequences of random ids in [CLS] and [SEP]."""
    draw = np.random.default_rng(seed)
    return [np.r_[2, draw.integers(5, VOCAB, draw.integers(3, longest - 1)), 3] for _ in range(number)]


def masker_of(mixture: Mixture, fraction: float = 0.15) -> Masker:
    """A masker by the mixture's counts."""
    return Masker.from_counts(
        mixture.token_counts, SPECIAL, fraction=fraction, smoothing=0.7, mask_share=0.8, keep_share=0.1
    )
