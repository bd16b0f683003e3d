"""Packed sequences that are attended to, and attention's definition in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import torch
from processors import within
from torch import Tensor

from distil.kernels.contract import statistics_dtype
from distil.kernels.cpu import QKV, CpuKernels, How

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


class Packed:
    """Queries, keys, values and an output's gradient of packed sequences, from one tensor as of a joint projection."""

    def __init__(
        self, lengths: list[int], heads: int, width: int, dtype: torch.dtype, *, size: float = 1.0, **how: object
    ) -> None:
        draw = torch.Generator().manual_seed(len(lengths) * width)
        ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
        joint = torch.randn(int(ends[-1]), 4, heads, width, generator=draw)
        joint[:, :2] *= size
        *qkv, self.upstream = joint.to(dtype).unbind(1)
        self.qkv: QKV = tuple(x.transpose(0, 1).unsqueeze(0) for x in qkv)
        self.how = replace(How(ends, width**-0.5, False, None, 0.0, 0), **how)

    def through(self, kernels: CpuKernels) -> list[Tensor]:
        """Output and gradients, each (N, A, d)."""
        out, logs = kernels.attention(self.qkv, self.how)
        return [out, *kernels.attention_gradients(self.qkv, self.upstream.contiguous(), logs, self.how)]

    def sequences(self) -> Iterator[tuple[slice, list[Tensor]]]:
        """Where each sequence lies, and what it is given in float64, (A, L, d)."""
        for start, end in pairwise(self.how.ends_B1.tolist()):
            upstream = self.upstream[start:end].transpose(0, 1)
            yield slice(start, end), [x.double() for x in (*(x[0, :, start:end] for x in self.qkv), upstream)]

    def check(self, kernels: CpuKernels, kept: list[Tensor] | None = None) -> None:
        """Against the definition, to the roundings of each number's own terms.

        A product's factors may be rounded to bf16: weights, and gradients of scores, to 2^-8 of themselves each. What
        comes out is rounded once. All else is in the statistics' type: a score is off by some roundings of its terms'
        size, of which a weight is off relatively, and sums and exponentials by some more. A weight below the least
        normal number may be 0; all numbers here are below 64.
        """
        dtype, h = self.qkv[0].dtype, self.how
        own, within_it = torch.finfo(dtype), torch.finfo(statistics_dtype(dtype))
        factor = own.eps / 2 if dtype == torch.bfloat16 else 0.0
        found = self.through(kernels)
        for number, (where, (q, k, v, back)) in enumerate(self.sequences()):
            seen = visible(q.shape[1], h)
            scores = (q @ k.mT * h.scale).masked_fill(~seen, -torch.inf)
            grown = torch.ones(()) if kept is None else kept[number] / (1 - h.dropout)
            weights, given = scores.softmax(-1), back @ v.mT * grown
            slopes = weights * (given - (weights * given).sum(-1, keepdim=True)) * h.scale
            spread = (back.abs() @ v.abs().mT) * grown
            spread = weights * (spread + (weights * spread).sum(-1, keepdim=True)) * h.scale
            if seen.numel() == 0:
                continue
            size = within_it.eps / 2 * (64 + 16 * float((q.abs() @ k.abs().mT).max()) * h.scale)
            lost = own.tiny * own.eps + within_it.tiny * 64 * len(seen)
            dropped = weights * grown
            terms = [
                (dropped @ v, dropped @ v.abs(), dropped @ v.abs()),
                (slopes @ k, slopes.abs() @ k.abs(), spread @ k.abs()),
                (slopes.mT @ q, slopes.abs().mT @ q.abs(), spread.mT @ q.abs()),
                (dropped.mT @ back, dropped.mT @ back.abs(), dropped.mT @ back.abs()),
            ]
            for mine, (wanted, absolute, least) in zip(found, terms, strict=True):
                limit = factor * absolute + size * least + own.eps / 2 * wanted.abs() * 1.01 + lost
                within(mine[where].transpose(0, 1), wanted, limit)


def visible(length: int, how: How) -> Tensor:
    """Which keys a query sees, bool (L, L)."""
    place = torch.arange(length)
    ahead = place - place[:, None]
    near = torch.ones_like(ahead, dtype=torch.bool) if how.window is None else ahead.abs() <= how.window
    return near & (ahead <= 0) if how.causal else near


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
