"""In which order sequences are trained on and evaluated."""

from __future__ import annotations

import numpy as np

from distil.data.permutation import permute, subkey
from distil.tasks.batch import Features


class Order:
    """An endless stream of sequence numbers, epoch after epoch, each epoch a shuffle of all ``count`` sequences.

    It is computed, not stored: what stands at a position follows from (count, seed, position) alone, so to resume is to
    know the position.
    """

    def __init__(self, count: int, seed: int) -> None:
        if count < 1:
            raise ValueError(f"an order of {count} sequences")
        self.count, self._key = count, subkey(seed, count)

    def numbers(self, start: int, stop: int) -> np.ndarray:
        """The sequence numbers at positions ``start`` to ``stop - 1`` of the stream; int64."""
        epochs, places = np.divmod(np.arange(start, stop, dtype=np.int64), self.count)
        return permute(places, self.count, subkey(self._key, epochs))


def evaluation_batches(features: Features, budget_tokens: int) -> list[np.ndarray]:
    """Numbers of all sequences, each once, in batches of at most so many tokens; a longer sequence is one by itself.

    Neighbours in length share a batch, so that attention pads little; the longest come first, so that what does not fit
    into memory fails at once.
    """
    order = np.argsort(-features.lengths, kind="stable")
    ends = np.cumsum(features.lengths[order])
    batches, start, done = [], 0, 0
    while start < len(order):
        stop = max(start + 1, int(np.searchsorted(ends, done + budget_tokens, side="right")))
        batches.append(order[start:stop])
        start, done = stop, int(ends[stop - 1])
    return batches
