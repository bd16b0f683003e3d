"""The matrix products of a head: rows to logits, and the logits' gradient to those of rows, weight and bias.

Shapes: R rows, B rows of a block, C rows of a chunk, H hidden width, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from distil.kernels.contract import Head, check_product, statistics_dtype
from distil.kernels.packing import PackedWeights, in_use
from distil.kernels.rows import Kernels


class Product(NamedTuple):
    """rows @ weight.T + bias."""

    rows_RH: Tensor
    weight_VH: Tensor
    bias_V: Tensor | None
    packed: PackedWeights | None = None  # those that have the weight laid out

    def memory(self, rows: int, kernels: Kernels) -> Tensor | None:
        """Memory for the logits of so many rows; None where each product brings its own."""
        return None if self.packed else kernels.empty((rows, len(self.weight_VH)), self.rows_RH)

    def logits(self, rows: slice, memory_BV: Tensor | None) -> Tensor:
        """Logits of some rows, in memory of as many or more."""
        if memory_BV is None:
            return self.packed.product(self.rows_RH[rows], self.weight_VH, self.bias_V)
        out_BV = memory_BV[: rows.stop - rows.start]
        if self.bias_V is None:
            return torch.mm(self.rows_RH[rows], self.weight_VH.t(), out=out_BV)
        return torch.addmm(self.bias_V, self.rows_RH[rows], self.weight_VH.t(), out=out_BV)


def product_of(name: str, hidden_RH: Tensor, head: Head) -> Product:
    """A head's product on hidden rows, in autocast's type where that is on; ValueError where they do not fit."""
    rows_RH, weight_VH, bias_V = head.transform(hidden_RH), head.weight_VH, head.bias_V
    device = rows_RH.device.type
    if torch.is_autocast_enabled(device) and rows_RH.dtype != torch.float64:  # which autocast leaves alone
        dtype = torch.get_autocast_dtype(device)
        rows_RH, weight_VH = rows_RH.to(dtype), weight_VH.to(dtype)
        bias_V = None if bias_V is None else bias_V.to(dtype)
    check_product(f"{name}'s", hidden_RH, rows_RH, Head(head.transform, weight_VH, bias_V))
    packed = in_use.get()
    return Product(rows_RH, weight_VH, bias_V, packed if packed and packed.takes(rows_RH, weight_VH) else None)


class Gradients:
    """The gradients of a product's rows, weight and bias, gathered piece by piece; None where not wanted.

    In fp16 all are summed in fp32, as products of gradients in sum form leave fp16's range. In bf16 a product is
    rounded as any other is, and only the sum of several chunks' is kept in fp32.
    """

    def __init__(self, product: Product, wanted: list[bool], chunk: int, kernels: Kernels) -> None:
        rows_RH, weight_VH = product.rows_RH, product.weight_VH
        self._product, self._kernels = product, kernels
        sums = statistics_dtype(rows_RH.dtype)
        of_rows = sums if rows_RH.dtype == torch.float16 else rows_RH.dtype
        of_weight = rows_RH.dtype if rows_RH.dtype == torch.bfloat16 and chunk >= len(rows_RH) else sums
        of_parts = torch.float32 if rows_RH.dtype == torch.float16 else rows_RH.dtype
        self.rows_RH = torch.empty_like(rows_RH, dtype=of_rows) if wanted[0] else None
        self.weight_VH = kernels.empty(weight_VH.shape, weight_VH.new_empty(0, dtype=of_weight)) if wanted[1] else None
        self.bias_V = weight_VH.new_zeros(len(weight_VH), dtype=sums) if wanted[2] else None
        self._part_VH = None
        if wanted[1] and not len(rows_RH):
            self.weight_VH.zero_()
        if wanted[1] and of_weight != rows_RH.dtype and chunk < len(rows_RH):
            self._part_VH = kernels.empty(weight_VH.shape, weight_VH.new_empty(0, dtype=of_parts))

    def take_rows(self, rows: slice, gradient_BV: Tensor) -> None:
        """Take the logits' gradient of some rows to those rows."""
        if self.rows_RH is not None:
            _multiply(gradient_BV, self._product.weight_VH, self.rows_RH[rows])

    def take_weight(self, rows: slice, gradient_CV: Tensor) -> None:
        """Add what the logits' gradient of a chunk of rows is to the weight."""
        if self.weight_VH is None:
            return
        gradient_VC, rows_CH = gradient_CV.t(), self._product.rows_RH[rows]
        if rows.start == 0:
            in_parts = rows_CH.dtype == torch.bfloat16 and self._part_VH is not None
            _multiply(gradient_VC, rows_CH, self._part_VH if in_parts else self.weight_VH)
            if in_parts:
                self.weight_VH.copy_(self._part_VH)
        elif self._part_VH is None:
            torch.addmm(self.weight_VH, gradient_VC, rows_CH, out=self.weight_VH)
        else:
            _multiply(gradient_VC, rows_CH, self._part_VH)
            self._kernels.add_(self.weight_VH, self._part_VH)


def _multiply(a: Tensor, b: Tensor, out: Tensor) -> None:
    """out = a @ b; factors of fp16 may have a product in fp32."""
    if out.dtype == a.dtype:
        torch.mm(a, b, out=out)
    elif a.is_cuda and torch.version.cuda:
        torch.mm(a, b, out_dtype=out.dtype, out=out)
    else:
        torch.mm(a.to(out.dtype), b.to(out.dtype), out=out)
