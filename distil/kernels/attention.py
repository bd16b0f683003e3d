"""Attention within packed sequences on a CPU, by a kernel that pads nothing and drops weights as it makes them.

torch's own pads them, and under dropout computes in fp32 by five passes over a matrix of weights. Here nothing of size
tokens x tokens leaves the cache: the backward pass makes scores and dropout anew (csrc/attention.cpp).
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distil.kernels.cpu import QKV, CpuKernels, How
from distil.kernels.native import TYPES

in_use: ContextVar[CpuKernels | None] = ContextVar("in_use", default=None)  # by whoever attends


def takes(query: Tensor, key: Tensor, value: Tensor, scale: float) -> bool:
    """Whether ``attention`` is for these."""
    alike = query.shape == key.shape == value.shape and query.dtype == key.dtype == value.dtype
    packed = query.dim() == 4 and len(query) == 1
    return alike and packed and query.dtype in TYPES and query.device.type == "cpu" and scale > 0


def attention(
    query: Tensor, key: Tensor, value: Tensor, ends_B1: Tensor, *, causal: bool, window: int | None, scale: float,
    dropout: float, kernels: CpuKernels,
) -> Tensor:  # fmt: skip
    """Attention within each packed sequence with its gradients; inputs (1, A, N, d), output (1, N, A, d).

    Sequence b begins at token ``ends_B1[b]`` (int32). A token sees those of its own, ``window`` to each side, and none
    behind it if ``causal``. Each weight is 0 with probability ``dropout``, else times 1 / (1 - dropout).
    """
    with torch._C.DisableTorchFunction():  # a mode would see every look at a shape
        ends_B1, ends = ends_B1.contiguous(), ends_B1.tolist()
        assert ends_B1.dtype == torch.int32 and ends[0] == 0 and ends[-1] == query.shape[2]
        assert ends == sorted(ends), "a sequence ends before it begins"
        if dropout == 1:
            return ((query + key + value) * 0).transpose(1, 2)
        seed = int(torch.randint(2**63 - 1, ())) if dropout > 0 else 0
        how = How(ends_B1, scale, causal, window, dropout, seed)
        return _Attention.apply(query, key, value, how, kernels)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, how: How, kernels: CpuKernels) -> Tensor:
        qkv = _readable((query, key, value))
        out_NAd, logs_AN = kernels.attention(qkv, how)
        ctx.save_for_backward(*qkv, logs_AN)
        ctx.settings = (how, kernels)
        return out_NAd.unsqueeze(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, logs_AN = ctx.saved_tensors
        how, kernels = ctx.settings
        gradients = kernels.attention_gradients((query, key, value), upstream.squeeze(0).contiguous(), logs_AN, how)
        return *(gradient.transpose(0, 1).unsqueeze(0) for gradient in gradients), None, None


def _readable(qkv: QKV) -> QKV:
    return tuple(x if x.stride(3) == 1 else x.contiguous() for x in qkv)
