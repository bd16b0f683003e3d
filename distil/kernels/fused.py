"""The triple loss in chunks of rows: logits are made, read twice, overwritten with their gradient and multiplied away.

For a chunk of rows: student and teacher logits by matrix products in the working precision; one pass over them for the
log-sum-exps, KL, cross-entropies and MSE, and one that writes the gradient over the student's logits
(``rows.Kernels.loss_rows_``); then the two products that take the gradient to the hidden rows and to the weight.
Nothing of size rows x vocabulary lives longer than a chunk, and nothing but gradients lives until the backward pass,
which multiplies them by what arrives from above.

Gradients of the logits are formed here, before the loss scale arrives. A mean over a global batch of 10^6 rows has
gradients of 1e-9 a logit, and fp16 ends at 6e-8; so in fp16 they take sum form: the largest of weight / count becomes
2^10 for the products, which are summed in fp32, and the true factor is multiplied after them.

Shapes: N attended rows, R rows that need logits, C rows of a chunk, H and G hidden widths, V vocabulary.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distil.kernels import chunks
from distil.kernels.contract import IGNORED, TERMS, Head, LossOutput, Weights, statistics_dtype
from distil.kernels.products import Gradients, Product, product_of
from distil.kernels.rows import VALUES, Kernels, Slopes

FP16_HEADROOM = 2.0**10  # at most three softmaxes' gradients on one row, each below 1, stay far below fp16's 65504


def triple_loss(
    student_hidden_NH: Tensor, student_head: Head, teacher_hidden_NG: Tensor | None, teacher_head: Head | None,
    labels_N: Tensor, next_labels_N: Tensor | None, masked_rows_M: Tensor | None, *, attended_count: int,
    masked_count: int, next_count: int, temperature: float, weights: Weights, restrict_ce_to_mask: bool,
    kernels: Kernels, chunk_rows: int | None, projected_hidden_NG: Tensor | None = None,
) -> LossOutput:  # fmt: skip
    """As ``kernels.triple_loss``, whose arguments these are, checked; ``chunk_rows`` None: by the device's memory."""
    masked_M = (labels_N != IGNORED).nonzero().squeeze(1) if masked_rows_M is None else masked_rows_M
    soft_count = masked_count if restrict_ce_to_mask else attended_count
    counts = {"ce": soft_count, "mlm": masked_count, "clm": next_count, "mse": soft_count, "teacher_mlm": masked_count}
    shares = {name: (getattr(weights, name, 0.0), max(count, 1)) for name, count in counts.items()}

    def over(student: Product, soft: Product | None, labels: Tensor, following: Tensor | None) -> tuple[Tensor, Tensor]:
        settings = (temperature, shares, kernels, chunk_rows, torch.is_grad_enabled())
        with torch.autocast(labels.device.type, enabled=False):  # the products' own types from here on
            return _LogitTerms.apply(*student[:3], student, soft, labels, following, *settings)

    everywhere = weights.clm > 0 or (weights.soft and not restrict_ce_to_mask)
    student_hidden = student_hidden_NH if everywhere else student_hidden_NH.index_select(0, masked_M)
    student, teacher = product_of("student", student_hidden, student_head), None
    if weights.soft:
        with torch.no_grad():
            teacher_hidden = teacher_hidden_NG.index_select(0, masked_M) if restrict_ce_to_mask else teacher_hidden_NG
            teacher = product_of("teacher", teacher_hidden, teacher_head)
    next_labels_N = next_labels_N if weights.clm > 0 else None
    if not everywhere:
        parts = [over(student, teacher, labels_N.index_select(0, masked_M), None)]
    elif weights.soft and restrict_ce_to_mask:  # KL at the masked rows, the next token everywhere
        masked = student._replace(rows_RH=student.rows_RH.index_select(0, masked_M))
        parts = [over(masked, teacher, labels_N.index_select(0, masked_M), None)]
        parts += [over(student, None, torch.full_like(labels_N, IGNORED), next_labels_N)]
    else:
        parts = [over(student, teacher, labels_N, next_labels_N)]
    total = torch.stack([part for part, _ in parts]).sum()
    sums = torch.stack([values for _, values in parts]).sum(0)
    terms = {name: sums[i] / shares[name][1] for i, name in enumerate(VALUES)}
    if weights.cos > 0:
        compared = student_hidden_NH if projected_hidden_NG is None else projected_hidden_NG
        cos = _cosine_sum(compared, teacher_hidden_NG, kernels) / max(attended_count, 1)
        total, terms["cos"] = total + weights.cos * cos, cos.detach()
    off = {name for name in ("ce", "clm", "cos", "mse") if getattr(weights, name) == 0}
    zero = torch.zeros_like(total)
    return LossOutput(total, torch.stack([zero.detach() if name in off else terms[name] for name in TERMS]))


class _LogitTerms(torch.autograd.Function):
    """Weighted total, and unweighted VALUES summed over rows, of the terms that need logits.

    ``student`` holds the three tensors before it; ``shares`` has a weight and a count for each of VALUES.
    """

    @staticmethod
    def forward(
        ctx: Any, rows_RH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, student: Product,
        teacher: Product | None, labels_R: Tensor, next_labels_R: Tensor | None, temperature: float,
        shares: dict[str, tuple[float, int]], kernels: Kernels, chunk_rows: int | None, training: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        slopes = {name: shares[name][0] / shares[name][1] for name in Slopes._fields[1:]}
        training = training and any(slopes.values())
        wanted = [training and needed for needed in ctx.needs_input_grad[:3]]
        form = _form(rows_RH.dtype, temperature, **slopes)
        formed = Slopes(temperature, **{name: form * slope for name, slope in slopes.items()})
        held = _held(student, teacher, kernels, chunk_rows)
        gradients = Gradients(student, wanted, held.chunk, kernels)
        values_5 = rows_RH.new_zeros(len(VALUES), dtype=statistics_dtype(rows_RH.dtype))
        memory_CV = student.memory(held.chunk, kernels)
        teacher_memory_BV = None if teacher is None else teacher.memory(held.block, kernels)
        for chunk in _runs(0, len(rows_RH), held.chunk):
            student_CV = student.logits(chunk, memory_CV)
            for block in _runs(chunk.start, chunk.stop, held.block):
                of_chunk = slice(block.start - chunk.start, block.stop - chunk.start)
                student_BV = student_CV[of_chunk]
                teacher_BV = None if teacher is None else teacher.logits(block, teacher_memory_BV)
                following = None if next_labels_R is None else next_labels_R[block]
                values_5 += _loss_rows_(
                    kernels, student_BV, teacher_BV, labels_R[block], following, formed, gradients.bias_V, any(wanted)
                ).sum(0)
            for piece in _runs(chunk.start, chunk.stop, held.piece):
                gradients.take_rows(piece, student_CV[piece.start - chunk.start : piece.stop - chunk.start])
            gradients.take_weight(chunk, student_CV)
        ctx.save_for_backward(gradients.rows_RH, gradients.weight_VH, gradients.bias_V)
        ctx.form, ctx.kernels, ctx.dtype = form, kernels, rows_RH.dtype
        ctx.shapes = [None if tensor is None else tensor.shape for tensor in (rows_RH, weight_VH, bias_V)]
        ctx.mark_non_differentiable(values_5)
        total = values_5.new_zeros(())
        for i, name in enumerate(VALUES):
            weight, count = shares[name]
            if weight > 0:
                total = total + weight * (values_5[i] / count)
        return total, values_5

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
        factor = upstream / ctx.form
        scaled = [None if g is None else ctx.kernels.scaled(g, factor, ctx.dtype) for g in ctx.saved_tensors]
        for i, shape in enumerate(ctx.shapes):
            # Where no term of logits has a weight: engines count on a gradient of everything that a forward has used.
            if scaled[i] is None and ctx.needs_input_grad[i]:
                scaled[i] = torch.zeros(shape, dtype=ctx.dtype, device=upstream.device)
        return (*scaled, *[None] * 9)


def _held(student: Product, teacher: Product | None, kernels: Kernels, chunk_rows: int | None) -> chunks.Sizes:
    if chunk_rows is not None:
        rows = max(min(chunk_rows, len(student.rows_RH)), 1)
        return chunks.Sizes(rows, rows, rows)
    rows_RH = student.rows_RH
    wide = rows_RH.dtype if teacher is None else torch.promote_types(rows_RH.dtype, teacher.rows_RH.dtype)
    return chunks.sizes(len(rows_RH), len(student.weight_VH), kernels.bytes_per_logit(wide), rows_RH.device)


def _runs(first: int, stop: int, length: int) -> list[slice]:
    return [slice(start, min(start + length, stop)) for start in range(first, stop, length)]


def _loss_rows_(kernels: Kernels, student_BV: Tensor, teacher_BV: Tensor | None, *others: Any) -> Tensor:
    """``Kernels.loss_rows_`` on logits of two types too: in the wider one."""
    if teacher_BV is None or teacher_BV.dtype == student_BV.dtype:
        return kernels.loss_rows_(student_BV, teacher_BV, *others)
    wide = torch.promote_types(student_BV.dtype, teacher_BV.dtype)
    wide_BV = student_BV.to(wide)
    values_B5 = kernels.loss_rows_(wide_BV, teacher_BV.to(wide), *others)
    student_BV.copy_(wide_BV)
    return values_B5


def _form(dtype: torch.dtype, temperature: float, ce: float, mlm: float, clm: float, mse: float) -> float:
    """What the slopes are multiplied by for the products: see the head of this file. A power of two: exact."""
    largest = max(ce * temperature, mlm, clm, 2 * mse)
    if dtype != torch.float16 or largest == 0:
        return 1.0
    headroom = 1.0 if mse else FP16_HEADROOM  # differences of logits are no softmaxes: leave them their range
    return headroom * 2.0 ** -math.ceil(math.log2(largest))


def _cosine_sum(student_NH: Tensor, teacher_NH: Tensor, kernels: Kernels) -> Tensor:
    dtype = torch.promote_types(student_NH.dtype, teacher_NH.dtype)
    return _CosineSum.apply(student_NH.to(dtype), teacher_NH.detach().to(dtype), kernels)


class _CosineSum(torch.autograd.Function):
    """Sum over rows of 1 - cos; the gradient is made in the backward pass, at the scale that arrives there."""

    @staticmethod
    def forward(ctx: Any, student_NH: Tensor, teacher_NH: Tensor, kernels: Kernels) -> Tensor:
        student_NH, teacher_NH = student_NH.contiguous(), teacher_NH.contiguous()
        values_N, factors_N2 = kernels.cosines(student_NH, teacher_NH)
        ctx.save_for_backward(student_NH, teacher_NH, factors_N2)
        ctx.kernels = kernels
        return values_N.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        student_NH, teacher_NH, factors_N2 = ctx.saved_tensors
        return ctx.kernels.cosine_gradients(student_NH, teacher_NH, factors_N2, upstream), None, None
