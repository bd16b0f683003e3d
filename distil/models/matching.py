"""Terms that compare what is inside student and teacher: hidden states of layers, and relations within attention.

Both are sums over attended rows divided by a count that the caller gives, that of the whole global batch, so that the
shares of micro-batches and ranks sum to the exact mean. Statistics are in fp32 whatever the working precision (fp64 of
fp64): inputs are cast before anything is squared or multiplied. Nothing reaches the teacher.

Shapes: N attended rows of a packed micro-batch, H and G hidden widths of student and teacher, A attention heads of
width d, R relation heads of width e = A d / R, B sequences, L the longest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distil.errors import ConfigError
from distil.kernels.contract import statistics_dtype
from distil.models.packed import QKV, Padding

# Scores that are made at once, 256 MiB in fp32, unless those of a single sequence are more. From shapes alone: what is
# summed together must not depend on what memory is free.
SCORES_AT_ONCE = 2**26


def hidden_loss(
    pairs: Sequence[tuple[Tensor, Tensor]], project: Callable[[Tensor], Tensor] | None, count: int
) -> Tensor:
    """Squared distance of hidden states (N, H) and (N, G), mean over G, summed over rows and pairs, per ``count``.

    Jiao et al. 2020 (TinyBERT, arXiv 1909.10351, eq. 8): MSE(H_s W, H_t) with one W, ``project``, for all layers; None
    compares the states as they are. A count of 0 stands for "no such row anywhere".
    """
    if not pairs:
        raise ValueError("hidden_loss: no hidden states to compare")
    terms = []
    for student_NH, teacher_NG in pairs:
        student_NG = student_NH if project is None else project(student_NH)
        if student_NG.shape != teacher_NG.shape:
            shapes = f"{tuple(student_NG.shape)} of the student and {tuple(teacher_NG.shape)} of the teacher"
            raise ValueError(f"hidden_loss: hidden states {shapes} must be of one shape: project the student's")
        dtype = statistics_dtype(torch.promote_types(student_NG.dtype, teacher_NG.dtype))
        apart_NG = student_NG.to(dtype) - teacher_NG.detach().to(dtype)
        terms.append(apart_NG.square().mean(-1).sum())
    return torch.stack(terms).sum() / max(count, 1)


def check_relation_heads(width: int, relation_heads: int, whose: str, other: int = 0) -> None:
    """Raise ConfigError where attention of this width, all its heads together, has no such number of relation heads.

    What is then advised also fits the width ``other``.
    """
    if 0 < relation_heads <= width and width % relation_heads == 0:
        return
    fitting = [heads for heads in range(1, width + 1) if math.gcd(width, other) % heads == 0]
    nearest = [*[h for h in fitting if h < relation_heads][-1:], *[h for h in fitting if h > relation_heads][:1]]
    raise ConfigError(
        f"{relation_heads} relation heads do not divide the width {width} of the {whose}'s attention; give "
        f"--relation_heads {' or '.join(map(str, nearest))}"
    )


def relation_loss(
    student: QKV, teacher: QKV, padding: Padding, relation_heads: int, count: int, *, causal: bool
) -> Tensor:
    """KL(R_t || R_s) of the relations among queries, among keys and among values, summed over positions per ``count``.

    Wang et al. 2021 (MiniLMv2, arXiv 2012.15828, section 3.1): the heads of X, (1, A, N, d), are joined to (N, A d)
    and split anew into ``relation_heads`` of width e, so that student and teacher may differ in A and d, and a
    position's relation is R = softmax(X X^T / sqrt(e)) within its own sequence; under ``causal`` over itself and what
    lies before it. KL is averaged over relation heads; each of the three relations has weight 1. Equal relations give
    exactly 0, and a gradient of exactly 0.

    Gradients are formed in the forward pass and cannot be differentiated again: they are of X's size, where scores
    that wait for the backward pass would take R L / A d times as much.
    """
    unseen_B1LL = _unseen(padding, causal, student[0].device)
    terms = []
    for student_1ANd, teacher_1ANd in zip(student, teacher, strict=True):
        if student_1ANd.shape[2] != teacher_1ANd.shape[2]:
            rows = f"{student_1ANd.shape[2]} rows of the student and {teacher_1ANd.shape[2]} of the teacher"
            raise ValueError(f"relation_loss: {rows}: they must be of one batch")
        dtype = statistics_dtype(torch.promote_types(student_1ANd.dtype, teacher_1ANd.dtype))
        student_BRLe = padding.pad(_split(student_1ANd, relation_heads, "student")).to(dtype)
        with torch.no_grad():
            teacher_BRLe = padding.pad(_split(teacher_1ANd, relation_heads, "teacher")).to(dtype)
        terms.append(_RelationSum.apply(student_BRLe, teacher_BRLe, unseen_B1LL))
    return torch.stack(terms).sum() / max(count, 1)


def _split(x_1ANd: Tensor, relation_heads: int, whose: str) -> Tensor:
    """(1, A, N, d) to (1, R, N, e)."""
    joined_1NW = x_1ANd.transpose(1, 2).flatten(2)
    check_relation_heads(joined_1NW.shape[-1], relation_heads, whose)
    return joined_1NW.unflatten(2, (relation_heads, -1)).transpose(1, 2)


def _unseen(padding: Padding, causal: bool, device: torch.device) -> Tensor | None:
    """Where a place (third dimension) does not see another (fourth): one without a token, under ``causal`` a later one.

    (B or 1, 1, L or 1, L); None where all see all. Rows of places without a token need no mask: there X is 0 in student
    and teacher, all scores are equal, and so are the relations.
    """
    seen = padding.mask(None)
    unseen = None if seen is None else ~seen
    if causal:
        later_LL = torch.ones(padding.longest, padding.longest, dtype=torch.bool, device=device).triu(1)
        unseen = later_LL[None, None] if unseen is None else unseen | later_LL
    return unseen


class _RelationSum(torch.autograd.Function):
    """KL(R_t || R_s) summed over sequences and positions, mean over relation heads; some sequences at a time."""

    @staticmethod
    def forward(ctx: Any, student_BRLe: Tensor, teacher_BRLe: Tensor, unseen_B1LL: Tensor | None) -> Tensor:
        heads, longest, width = student_BRLe.shape[1:]
        total = student_BRLe.new_zeros(())
        gradient_BRLe = torch.empty_like(student_BRLe) if ctx.needs_input_grad[0] else None
        at_once = max(1, SCORES_AT_ONCE // (heads * longest * longest))
        with torch.autocast(student_BRLe.device.type, enabled=False):  # products in the type they were given in
            for first in range(0, len(student_BRLe), at_once):
                of = slice(first, first + at_once)
                unseen = unseen_B1LL if unseen_B1LL is None or len(unseen_B1LL) == 1 else unseen_B1LL[of]
                log_q, log_p = _log_relations(student_BRLe[of], unseen), _log_relations(teacher_BRLe[of], unseen)
                p = log_p.exp()
                total += log_p.sub_(log_q).mul_(p).sum(-1).sum() / heads
                if gradient_BRLe is not None:
                    # Of softmax(s) the gradient by s is q - p, and s_ij has x_i and x_j in it.
                    apart = log_q.exp_().sub_(p)
                    both = apart + apart.transpose(-1, -2)
                    torch.matmul(both, student_BRLe[of] * (width**-0.5 / heads), out=gradient_BRLe[of])
        ctx.save_for_backward(gradient_BRLe)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_BRLe,) = ctx.saved_tensors
        return None if gradient_BRLe is None else gradient_BRLe * upstream, None, None


def _log_relations(x_BRLe: Tensor, unseen_B1LL: Tensor | None) -> Tensor:
    """log softmax(X X^T / sqrt(e)), (B, R, L, L)."""
    scores_BRLL = (x_BRLe * x_BRLe.shape[-1] ** -0.5) @ x_BRLe.transpose(-1, -2)
    if unseen_B1LL is not None:
        # Not -inf, of which student's less teacher's would be no number; its exponential is 0 all the same.
        scores_BRLL.masked_fill_(unseen_B1LL, torch.finfo(scores_BRLL.dtype).min)
    return scores_BRLL.log_softmax(-1)
