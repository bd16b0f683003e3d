"""The plan of an epoch: which sequences make which micro-batch, each computed from its number alone.

``layout`` says how many sequences of which length a micro-batch of each window takes. Which ones is a computed
shuffle (``permutation``): each row of the layout deals its places to the windows by a shuffle of its own, and among
all sequences of a length any may stand at any of their places. Micro-batches of a window are shuffled again. So every
sequence comes once an epoch, the order is new in each, and neither time nor memory of a micro-batch depend on how many
sequences there are or how many came before. Ranks and workers have no part in it.

Training reads one endless stream of micro-batches, epoch after epoch: step s of a global batch of G micro-batches
takes numbers s G to s G + G - 1 of it. To resume is therefore to know the step.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from distil.data.layout import arrange
from distil.data.lengths import Lengths
from distil.data.permutation import permute, subkey
from distil.errors import DataError

STREAMS = {"order": 0, "masks": 1, "heldout": 2, "dropout": 3}
WINDOWS_KEPT = 64


def generator(stream: str, *key: int) -> np.random.Generator:
    """An independent random generator for each (stream, key): same key, same numbers, on any machine."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((STREAMS[stream], *key))))


class Plan:
    """The stream of micro-batches over all epochs of sequences with these ``lengths``.

    A sequence is named by its place when all are laid out by length, shortest first (``Store.at`` finds it there).
    Raises DataError if a sequence alone exceeds the token budget.
    """

    def __init__(self, lengths: Lengths, budget_tokens: int, seed: int, stream: int = 0) -> None:
        """Plans of equal lengths and seed, of two stores say, are independent under different ``stream`` numbers."""
        if lengths.longest > budget_tokens:
            raise DataError(
                f"the store's longest sequence has {lengths.longest} tokens and a micro-batch holds {budget_tokens} "
                "(micro_batch_size x max_length): raise one of them or binarize with a smaller --max_length"
            )
        self.lengths, self._layout, self._key = lengths, arrange(lengths, budget_tokens), (seed, stream)
        self.micro_batches = self._layout.micro_batches  # of an epoch, the same number in each
        self.filling = lengths.tokens / (self.micro_batches * budget_tokens)  # share of the budget, in the mean
        self._window = lru_cache(maxsize=WINDOWS_KEPT)(self._make_window)
        self._epoch_keys = lru_cache(maxsize=4)(self._make_epoch_keys)

    def locate(self, number: int) -> tuple[int, int]:
        """(epoch, micro-batch within it) of a stream number."""
        return divmod(number, self.micro_batches)

    def places(self, number: int) -> np.ndarray:
        """Places, int64, of the sequences of the micro-batch with this stream number."""
        parts, _, k = self._part_of(number)
        return parts[k]

    def tokens(self, number: int) -> int:
        """Tokens of the micro-batch with this stream number."""
        _, tokens, k = self._part_of(number)
        return tokens[k]

    def _part_of(self, number: int) -> tuple[list[np.ndarray], list[int], int]:
        epoch, k = self.locate(number)
        regular = len(self._layout.groups)
        longer = self._layout.over if self._layout.host is None else 0  # windows with one micro-batch more, the first
        if k < longer * (regular + 1):
            window, k = divmod(k, regular + 1)
        else:
            window, k = divmod(k - longer, regular)
        return (*self._window(epoch, window), k)

    def _make_epoch_keys(self, epoch: int) -> np.ndarray:
        return generator("order", *self._key, epoch).integers(2**64, size=4, dtype=np.uint64)

    def _make_window(self, epoch: int, window: int) -> tuple[list[np.ndarray], list[int]]:
        """Places and tokens of each micro-batch of a window, in the order in which they come."""
        layout, counts_K = self._layout, self.lengths.counts_K
        of_rows, of_rest, of_kinds, of_windows = self._epoch_keys(epoch)
        rows_W = layout.rows_W
        dealt = layout.over + rows_W * layout.windows + permute(window, layout.windows, subkey(of_rows, rows_W))
        rest = self._rest(window, of_rest)
        dealt = np.append(dealt, rest)
        kinds = self.lengths.kinds(dealt)
        first = self.lengths.ends_K[kinds] - counts_K[kinds]
        places = first + permute(dealt - first, counts_K[kinds], subkey(of_kinds, kinds))
        sizes = self.lengths.values_K[kinds]
        parts = [places[start:end] for start, end in zip(layout.bounds[:-1], layout.bounds[1:], strict=True)]
        tokens = np.add.reduceat(sizes[: len(rows_W)], layout.bounds[:-1]).tolist()
        if rest.size and layout.host is not None:
            parts[layout.host] = np.append(parts[layout.host], places[-1])
            tokens[layout.host] += int(sizes[-1])
        elif rest.size:
            parts.append(places[-1:])
            tokens.append(int(sizes[-1]))
        order = permute(np.arange(len(parts)), len(parts), subkey(of_windows, window))
        return [parts[i] for i in order], [tokens[i] for i in order]

    def _rest(self, window: int, key: np.uint64) -> np.ndarray:
        """What the window gets of the row that is too short for all: one place or none."""
        layout = self._layout
        if not layout.over or (layout.host is None and window >= layout.over):
            return np.empty(0, dtype=np.int64)
        dealt = permute(np.array([window]), layout.over if layout.host is None else layout.windows, key)
        return dealt[dealt < layout.over]
