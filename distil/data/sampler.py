"""The plan of an epoch: which sequences make which micro-batch, a pure function of (seed, epoch).

Micro-batches are token budgets: sequences are shuffled, sorted by length within windows of the shuffle (so that those
of a micro-batch are alike), cut where the budget is full, and the micro-batches shuffled again. Ranks take their share
of the same plan, so it is the same for any number of them.

Training reads one endless stream of micro-batches, epoch after epoch: step s of a global batch of G micro-batches
takes numbers s G to s G + G - 1 of it. To resume is therefore to know the step.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from distil.errors import DataError

# Micro-batches' worth of sequences sorted together. Long enough that lengths within a micro-batch are nearly equal,
# short enough that the order stays random on the scale of an optimiser step.
WINDOW = 64
STREAMS = {"order": 0, "masks": 1, "heldout": 2, "dropout": 3}


def generator(stream: str, *key: int) -> np.random.Generator:
    """An independent random generator for each (stream, key): same key, same numbers, on any machine."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((STREAMS[stream], *key))))


class EpochPlan:
    """The micro-batches of one epoch; every sequence is in exactly one of them."""

    def __init__(self, lengths_S: np.ndarray, budget_tokens: int, seed: int, epoch: int) -> None:
        rng = generator("order", seed, epoch)
        order_S = rng.permutation(len(lengths_S))
        window = max(1, WINDOW * budget_tokens // max(1, int(lengths_S.mean())))
        for start in range(0, len(order_S), window):
            part = order_S[start : start + window]
            order_S[start : start + window] = part[np.argsort(lengths_S[part], kind="stable")]
        ends = _cut(np.cumsum(lengths_S[order_S], dtype=np.int64), budget_tokens)
        self._order_S, self._ends = order_S, np.concatenate(([0], ends))
        self._shuffle = rng.permutation(len(ends))
        self.tokens = np.add.reduceat(lengths_S[order_S], self._ends[:-1], dtype=np.int64)[self._shuffle]

    def __len__(self) -> int:
        return len(self._shuffle)

    def __getitem__(self, k: int) -> np.ndarray:
        """Sequence numbers of micro-batch k of this epoch."""
        b = self._shuffle[k]
        return self._order_S[self._ends[b] : self._ends[b + 1]]


class Plan:
    """The stream of micro-batches over all epochs of a store with sequence lengths ``lengths_S``.

    Raises DataError if a sequence alone exceeds the token budget.
    """

    def __init__(self, lengths_S: np.ndarray, budget_tokens: int, seed: int) -> None:
        longest = int(lengths_S.max())
        if longest > budget_tokens:
            raise DataError(
                f"the store's longest sequence has {longest} tokens and a micro-batch holds {budget_tokens} "
                "(micro_batch_size x max_length): raise one of them or binarize with a smaller --max_length"
            )
        self._lengths_S, self._budget, self._seed = lengths_S, budget_tokens, seed
        self._starts = [0]  # stream number at which each epoch begins
        self.epoch = lru_cache(maxsize=2)(self._make_epoch)

    def _make_epoch(self, epoch: int) -> EpochPlan:
        return EpochPlan(self._lengths_S, self._budget, self._seed, epoch)

    def start(self, epoch: int) -> int:
        """Stream number of the first micro-batch of an epoch."""
        while len(self._starts) <= epoch:
            last = len(self._starts) - 1
            self._starts.append(self._starts[last] + len(self.epoch(last)))
        return self._starts[epoch]

    def locate(self, number: int) -> tuple[int, int]:
        """(epoch, micro-batch within it) of a stream number."""
        epoch = 0
        while self.start(epoch + 1) <= number:
            epoch += 1
        return epoch, number - self.start(epoch)

    def sequences(self, number: int) -> np.ndarray:
        """Sequence numbers of the micro-batch with this stream number."""
        epoch, k = self.locate(number)
        return self.epoch(epoch)[k]

    def tokens(self, number: int) -> int:
        """Tokens of the micro-batch with this stream number."""
        epoch, k = self.locate(number)
        return int(self.epoch(epoch).tokens[k])


def _cut(cumulative_S: np.ndarray, budget: int) -> np.ndarray:
    """Ends (exclusive) of the longest runs whose tokens fit the budget, greedily from the start."""
    ends, filled = [], 0
    while not ends or ends[-1] < len(cumulative_S):
        end = int(np.searchsorted(cumulative_S, filled + budget, side="right"))
        ends.append(end)
        filled = int(cumulative_S[end - 1])
    return np.array(ends, dtype=np.int64)
