"""How a window of the shuffle is cut into micro-batches: once for all windows of all epochs.

Sequences laid out by length are cut into rows of R neighbours. A window takes one of each row, so there are R windows,
all of the same lengths but for what varies within a row. Rows are grouped so that even the longest of each row fit the
token budget together; a group is a micro-batch of every window. So all windows have equally many micro-batches, and
which sequences make micro-batch k follows from k alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from distil.data.lengths import Lengths

# Micro-batches a window may have. More of them fill the budget better, fewer leave more windows to choose from.
SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
FEW_WINDOWS = 64  # up to so many every number is tried


@dataclass(frozen=True)
class Layout:
    """``windows`` R and the rows of each micro-batch; row i holds places ``over + i R`` to ``over + (i + 1) R``.

    The ``over`` shortest sequences, fewer than R, are a row that not every window has a part in. It joins micro-batch
    ``host`` where that has room; with ``host`` None it makes one more micro-batch in the first ``over`` windows.
    """

    windows: int
    over: int
    groups: tuple[np.ndarray, ...]
    host: int | None

    @property
    def micro_batches(self) -> int:
        """Micro-batches of an epoch."""
        return self.windows * len(self.groups) + (self.over if self.host is None else 0)

    @cached_property
    def rows_W(self) -> np.ndarray:
        """All rows, those of a micro-batch beside each other."""
        return np.concatenate(self.groups)

    @cached_property
    def bounds(self) -> np.ndarray:
        """Where in ``rows_W`` each micro-batch begins, and the end of the last."""
        return np.cumsum([0, *map(len, self.groups)])


def arrange(lengths: Lengths, budget: int) -> Layout:
    """The layout that fills the budget best, with windows enough to shuffle; the longest sequence must fit."""

    def worth(layout: Layout) -> float:
        filling = lengths.tokens / (layout.micro_batches * budget)
        return filling * (1 - 1 / (8 * layout.windows))  # one window is no choice at all, from 20 on it is plenty

    return max(_candidates(lengths, budget), key=worth)


def _candidates(lengths: Lengths, budget: int) -> Iterator[Layout]:
    fewest = -(-lengths.tokens // (SIZES[-1] * budget))
    for windows in range(fewest, min(lengths.sequences, FEW_WINDOWS) + 1):
        yield _cut(lengths, budget, windows)
    for size in SIZES:
        windows = min(lengths.sequences, -(-lengths.tokens // (size * budget)))
        while (excess := len((layout := _cut(lengths, budget, windows)).groups) / size - 1) > 0:
            windows = max(windows + 1, int(windows * (1 + excess / 4)))
        yield layout


def _cut(lengths: Lengths, budget: int, windows: int) -> Layout:
    rows, over = divmod(lengths.sequences, windows)
    longest_W = lengths.values_K[lengths.kinds(over - 1 + windows * np.arange(1, rows + 1))]
    groups, room = _group(longest_W, budget)
    host = None
    if over:
        needed = lengths.values_K[lengths.kinds(np.array([over - 1]))][0]
        host = next((group for group in range(len(groups)) if room[group] >= needed), None)
    return Layout(windows, over, tuple(groups), host)


def _group(longest_W: np.ndarray, budget: int) -> tuple[list[np.ndarray], list[int]]:
    """Rows, whose longest sequences ascend, in groups within the budget, and what room each group leaves.

    Each group takes the longest rows left, and fills up with the longest that still fit.
    """
    kinds, starts = np.unique(longest_W, return_index=True)
    kinds, starts = kinds.tolist(), starts.tolist()
    ends = [*starts[1:], len(longest_W)]  # rows of kind i that are left: starts[i] to ends[i]
    below = list(range(-1, len(kinds) - 1))  # the next shorter kind that may have rows left
    groups, room = [], []
    left = len(longest_W)
    while left:
        free, group = budget, []
        kind = len(kinds) - 1
        while (kind := min(kind, bisect_right(kinds, free) - 1)) >= 0:
            if ends[kind] == starts[kind]:
                if below[kind] >= 0 and ends[below[kind]] == starts[below[kind]]:
                    below[kind] = below[below[kind]]
                kind = below[kind]
                continue
            taken = min(ends[kind] - starts[kind], free // kinds[kind])
            group.append(np.arange(ends[kind] - taken, ends[kind]))
            ends[kind] -= taken
            free -= taken * kinds[kind]
            left -= taken
        groups.append(np.concatenate(group))
        room.append(free)
    return groups, room
