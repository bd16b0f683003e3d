"""Sequences of a task, tokenised, and packed into micro-batches: one row of real tokens, no padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from distil.data.batch import TensorBatch


@dataclass(frozen=True)
class Features:
    """Tokenised sequences, end to end; of SPANS a long context makes several windows.

    Sequence i has tokens ``starts[i]`` to ``starts[i + 1]`` of ``input_ids`` and ``token_types`` (int32). ``labels``
    has a row for each: a class id (int64), a value (float32), or of SPANS two places within the sequence (int64), where
    the answer's first and last token stand, both 0, which is the first token, where the window has none.
    ``starts`` and ``examples`` are int64; ``examples[i]`` is the number of the example of sequence i. Of SPANS
    ``offsets`` (int32, a row a token) has the characters of the context that a token stands for, from and to; -1 for
    all other tokens.
    """

    input_ids: np.ndarray
    token_types: np.ndarray
    starts: np.ndarray
    labels: np.ndarray
    examples: np.ndarray
    offsets: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, int64."""
        return np.diff(self.starts)

    def places(self, numbers: Sequence[int] | np.ndarray) -> np.ndarray:
        """Where the tokens of these sequences, one after the other, stand in ``input_ids``; int64."""
        numbers = np.asarray(numbers, dtype=np.int64)
        lengths = self.lengths[numbers]
        before = np.cumsum(lengths) - lengths
        return np.repeat(self.starts[numbers] - before, lengths) + np.arange(lengths.sum())


@dataclass(frozen=True)
class TaskBatch(TensorBatch):
    """B sequences of N tokens in all, end to end.

    ``input_ids_N``, ``token_types_N`` and ``position_ids_N`` are int64; ``cu_seqlens_B1`` is int32, the offset at which
    each sequence begins, and N at the end; ``labels_B`` are as in Features, of SPANS (B, 2); ``longest`` is the longest
    sequence.
    """

    input_ids_N: Tensor
    token_types_N: Tensor
    position_ids_N: Tensor
    cu_seqlens_B1: Tensor
    labels_B: Tensor
    longest: int

    @classmethod
    def of(cls, features: Features, numbers: Sequence[int] | np.ndarray) -> Self:
        """These sequences, in this order."""
        numbers = np.asarray(numbers, dtype=np.int64)
        places_N, lengths_B = features.places(numbers), features.lengths[numbers]
        arrays = (
            features.input_ids[places_N].astype(np.int64),
            features.token_types[places_N].astype(np.int64),
            places_N - np.repeat(features.starts[numbers], lengths_B),
            np.concatenate(([0], np.cumsum(lengths_B))).astype(np.int32),
            features.labels[numbers],
        )
        return cls(*(torch.from_numpy(array) for array in arrays), longest=int(lengths_B.max()))
