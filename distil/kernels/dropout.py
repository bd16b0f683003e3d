"""Dropout on a CPU, whose own is one thread that draws a number at a time: a mask that is a function of places.

Each number stays with probability 1 - p, times 1 / (1 - p) (Srivastava et al. 2014), p to the nearest 2^-32. The seed
of a call is drawn from torch's generator, so who seeds that decides the masks, as with torch's own dropout.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distil.kernels.cpu import CpuKernels


def dropout(x: Tensor, p: float, kernels: CpuKernels) -> Tensor:
    """``x`` of any shape with a share ``p`` of it, 0 to 1, set to 0 at random."""
    if p == 0:
        return x
    if p == 1:
        return x * 0
    return _Dropout.apply(x, p, int(torch.randint(2**63 - 1, ())), kernels)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, seed: int, kernels: CpuKernels) -> Tensor:
        ctx.settings = (p, seed, kernels)
        return kernels.dropout(x.contiguous(), p, seed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        p, seed, kernels = ctx.settings
        return kernels.dropout(upstream.contiguous(), p, seed), None, None, None
