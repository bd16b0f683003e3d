"""How many sequences of each length a store holds: all that a plan needs to know of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Lengths:
    """``values_K`` are the lengths that occur, ascending, each above 0; ``counts_K`` how many sequences have each.

    Laid out by length, shortest first, sequences of value k stand at places ``ends_K[k] - counts_K[k]`` to
    ``ends_K[k]``. Its size does not grow with the number of sequences.
    """

    values_K: np.ndarray
    counts_K: np.ndarray
    ends_K: np.ndarray

    @classmethod
    def of(cls, pairs: Iterable[Iterable[int]]) -> Self:
        """From (length, how many) in ascending order of length; there must be one at least."""
        values_K, counts_K = np.array(list(pairs), dtype=np.int64).T
        return cls(values_K, counts_K, np.cumsum(counts_K))

    @property
    def sequences(self) -> int:
        """How many sequences there are."""
        return int(self.ends_K[-1])

    @property
    def tokens(self) -> int:
        """How many tokens they hold together; exact, as no 64 bits need."""
        return sum(int(value) * int(count) for value, count in zip(self.values_K, self.counts_K, strict=True))

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.values_K[-1])

    def kinds(self, places: np.ndarray) -> np.ndarray:
        """Index into ``values_K`` of the length at each place of the layout by length."""
        return np.searchsorted(self.ends_K, places, side="right")
