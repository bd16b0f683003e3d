"""Packed micro-batches: one row of real tokens, no padding, each a pure function of (seed, number)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor

from distil.data.masking import Masker, NextToken, Objective
from distil.data.mixture import Mixture
from distil.data.sampler import generator
from distil.data.store import Store
from distil.kernels import IGNORED

# Of no recipe: held-out masks and how tokens are grouped under them must not change with what is compared.
HELDOUT_BUDGET = 4096
HELDOUT_MASKING = {"fraction": 0.15, "smoothing": 0.0, "mask_share": 0.8, "keep_share": 0.1}


class TensorBatch:
    """A dataclass of tensors, and of what else describes them."""

    def to(self, device: torch.device) -> Self:
        """The same batch on a device; from pinned memory the host does not wait for the copy."""
        return self._with(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Self:
        """The same batch in memory that a GPU can copy from by itself."""
        return self._with(Tensor.pin_memory)

    def _with(self, change: Callable[[Tensor], Tensor]) -> Self:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return type(self)(**{n: change(v) if isinstance(v, Tensor) else v for n, v in values.items()})


@dataclass(frozen=True)
class PackedBatch(TensorBatch):
    """B sequences of N tokens in all, end to end, of which M are to be predicted.

    ``input_ids_N``, ``labels_N`` (-100 where nothing is predicted), ``predicted_rows_M`` (where something is) and
    ``position_ids_N`` are int64; ``cu_seqlens_B1`` is int32, the offset at which each sequence begins, and N at the
    end; ``longest`` is the longest sequence.
    """

    input_ids_N: Tensor
    labels_N: Tensor
    predicted_rows_M: Tensor
    position_ids_N: Tensor
    cu_seqlens_B1: Tensor
    longest: int

    @classmethod
    def pack(cls, input_ids_N: np.ndarray, labels_N: np.ndarray, lengths_B: np.ndarray) -> Self:
        """Pack sequences of the given lengths whose ids and labels are already end to end."""
        cu_seqlens = np.concatenate(([0], np.cumsum(lengths_B))).astype(np.int32)
        positions = np.arange(len(input_ids_N), dtype=np.int64) - np.repeat(cu_seqlens[:-1].astype(np.int64), lengths_B)
        arrays = (input_ids_N, labels_N, np.flatnonzero(labels_N != IGNORED), positions, cu_seqlens)
        return cls(*(torch.from_numpy(array) for array in arrays), longest=int(lengths_B.max()))


class Batcher:
    """Assembles the micro-batches of a mixture, labels included."""

    def __init__(self, mixture: Mixture, objective: Objective, seed: int) -> None:
        self.mixture, self.objective, self.seed = mixture, objective, seed

    def batch(self, number: int) -> PackedBatch:
        """Micro-batch with this stream number, with a draw of its own for what it is to predict."""
        ids_N, lengths_B = self.mixture.gather(number)
        inputs_N, labels_N = self.objective.targets(ids_N, lengths_B, generator("masks", self.seed, number))
        return PackedBatch.pack(inputs_N, labels_N, lengths_B)


def heldout_batches(stores: Sequence[Store], at_most: int, *, causal: bool = False) -> list[PackedBatch]:
    """The first ``at_most`` tokens of held-out stores, an equal share of each, in fixed micro-batches, shortest first.

    The masks are uniform and depend on nothing but the stores, so that figures of different recipes compare; of causal
    models every next token is asked.
    """
    batches: list[PackedBatch] = []
    for store in stores:
        objective = NextToken() if causal else _heldout_masker(store)
        share = at_most // len(stores)
        sizes = store.sizes[: max(1, share)]  # a token each, so no more of them are needed; but for empty ones
        first = np.flatnonzero(sizes)
        taken = max(1, int(np.searchsorted(np.cumsum(sizes[first], dtype=np.int64), share, side="right")))
        order = first[:taken][np.argsort(sizes[first[:taken]], kind="stable")]
        taken = len(order)
        start = 0
        while start < taken:
            budget = max(HELDOUT_BUDGET, store.sizes[order[start]])
            end = start + int((np.cumsum(store.sizes[order[start:]], dtype=np.int64) <= budget).sum())
            ids_N, lengths_B = store.gather(order[start:end])
            inputs_N, labels_N = objective.targets(ids_N, lengths_B, generator("heldout", len(batches)))
            batches.append(PackedBatch.pack(inputs_N, labels_N, lengths_B))
            start = end
    return batches


def _heldout_masker(store: Store) -> Masker:
    return Masker.from_counts(store.token_counts, store.meta.special_ids, **HELDOUT_MASKING)
