"""Weights laid out once, as oneDNN's matrix products on a CPU read them, for as many products as they stay the same.

A product otherwise lays its weight out anew, and in fp32 MKL is slow at the vocabulary's odd width. What it is worth in
a step: benchmarks/results/step-cpu.md. torch's own compiler calls the same two operators where it freezes a model.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEAST_NUMBERS = 2**16  # of a smaller weight the layout costs nothing
ROWS = 1024  # for which a layout is chosen: always the same, lest products depend on what came first


def available(dtype: torch.dtype) -> bool:
    """Whether this machine's oneDNN multiplies numbers of that type in its own layouts."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedWeights:
    """Layouts of weights, made when they are first multiplied.

    Those of trained weights hold until ``forget``, which must be called whenever these weights have changed.
    """

    def __init__(self, least_numbers: int = LEAST_NUMBERS) -> None:
        self._least = least_numbers
        self._packed: dict[int, tuple[Tensor, Tensor]] = {}  # by id of the weight, which is kept, so that it stays its

    def takes(self, rows: Tensor, weight: Tensor) -> bool:
        """Whether a product of these is one for ``linear``.

        What ZeRO-3 gathers and frees again is not, nor what is no parameter and would be laid out for one product.
        """
        alike = rows.dtype == weight.dtype and rows.device.type == "cpu" == weight.device.type
        stays = isinstance(weight, nn.Parameter) and not hasattr(weight, "ds_id") and weight.numel() >= self._least
        return alike and stays and not torch.is_autocast_enabled("cpu") and available(weight.dtype)

    def linear(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``rows @ weight.T + bias``, (..., K), (M, K) and (M,) to (..., M), with its gradients."""
        return _Linear.apply(rows, weight, bias, self)

    def product(self, rows_RK: Tensor, weight_MK: Tensor, bias_M: Tensor | None) -> Tensor:
        """The same of two-dimensional rows, without gradients."""
        return torch.ops.mkldnn._linear_pointwise(rows_RK, self._layout(weight_MK), bias_M, "none", [], "")

    def forget(self) -> None:
        """Drop the layouts of weights that are trained."""
        self._packed = {key: kept for key, kept in self._packed.items() if not kept[0].requires_grad}

    def _layout(self, weight: Tensor) -> Tensor:
        if id(weight) not in self._packed:
            self._packed[id(weight)] = (weight, torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS))
        return self._packed[id(weight)][1]


in_use: ContextVar[PackedWeights | None] = ContextVar("in_use", default=None)  # by whoever multiplies


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, packed: PackedWeights) -> Tensor:
        ctx.save_for_backward(rows, weight)
        rows_RK = rows.reshape(-1, rows.shape[-1]).contiguous()
        return packed.product(rows_RK, weight, bias).view(*rows.shape[:-1], len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        upstream_RM, rows_RK = upstream.reshape(-1, upstream.shape[-1]), rows.reshape(-1, rows.shape[-1])
        of_rows = (upstream_RM @ weight).view_as(rows) if ctx.needs_input_grad[0] else None
        of_weight = upstream_RM.t() @ rows_RK if ctx.needs_input_grad[1] else None
        of_bias = upstream_RM.sum(0) if ctx.needs_input_grad[2] else None
        return of_rows, of_weight, of_bias, None
