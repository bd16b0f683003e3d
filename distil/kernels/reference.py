"""The triple loss in plain torch: the definition that every faster path must equal.

Sanh et al. 2019 (arXiv 1910.01108, section 3) with the optional terms of their public training code:

    L = a_ce  T^2 KL(softmax(t/T) || softmax(s/T))      over attended rows (or masked ones: restrict_ce_to_mask)
      + a_mlm cross-entropy(s, label)                   over masked rows, at T = 1
      + a_clm cross-entropy(s, next token)              over rows that have a next token
      + a_cos (1 - cos(h_s, h_t))                       over attended rows, last hidden states; h_s projected if given
      + a_mse sum_v (s_v - t_v)^2                       over the rows of KL

Each term is a sum over rows divided by a count that the caller gives: the count of the whole global batch makes the
sum over micro-batches and ranks the exact mean. Logits exist only for rows that some term needs; their statistics are
in fp32 whatever the working precision.

Shapes: N attended rows of a packed micro-batch, R rows that need logits, H and G hidden widths, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from distil.kernels.contract import IGNORED, TERMS, Head, LossOutput, Weights, statistics_dtype


def triple_loss(
    student_hidden_NH: Tensor,
    student_head: Head,
    teacher_hidden_NG: Tensor | None,
    teacher_head: Head | None,
    labels_N: Tensor,
    next_labels_N: Tensor | None = None,
    masked_rows_M: Tensor | None = None,
    *,
    attended_count: int,
    masked_count: int,
    next_count: int,
    temperature: float,
    weights: Weights,
    restrict_ce_to_mask: bool,
    projected_hidden_NG: Tensor | None = None,
) -> LossOutput:
    """As ``kernels.triple_loss``, whose arguments these are, checked."""
    zero = student_hidden_NH.new_zeros((), dtype=statistics_dtype(student_hidden_NH.dtype))
    terms = dict.fromkeys(TERMS, zero)
    masked_M = (labels_N != IGNORED).nonzero().squeeze(1) if masked_rows_M is None else masked_rows_M
    if (weights.soft and not restrict_ce_to_mask) or weights.clm > 0:
        student_RV = student_head.logits(student_hidden_NH)
        student_MV = student_RV.index_select(0, masked_M)
        soft_rows, soft_count = slice(None), attended_count
        if restrict_ce_to_mask:
            soft_rows, soft_count = masked_M, masked_count
        student_soft = student_RV[soft_rows]
    else:
        student_RV = student_MV = student_soft = student_head.logits(student_hidden_NH.index_select(0, masked_M))
        soft_rows, soft_count = masked_M, masked_count

    if weights.soft:
        with torch.no_grad():
            teacher_soft = teacher_head.logits(teacher_hidden_NG[soft_rows])
            teacher_MV = teacher_soft if soft_rows is masked_M else teacher_soft.index_select(0, masked_M)
            terms["teacher_mlm"] = _cross_entropy(teacher_MV, labels_N[masked_M], masked_count)
        if weights.ce > 0:
            terms["ce"] = _kl(student_soft, teacher_soft, temperature) / max(soft_count, 1)
        if weights.mse > 0:
            terms["mse"] = (student_soft - teacher_soft).square().sum() / max(soft_count, 1)
    # Also without weight: the masked-LM loss is what a reader of the curves compares runs by.
    with torch.set_grad_enabled(weights.mlm > 0 and torch.is_grad_enabled()):
        terms["mlm"] = _cross_entropy(student_MV, labels_N[masked_M], masked_count)
    if weights.clm > 0:
        terms["clm"] = _cross_entropy(student_RV, next_labels_N, next_count)
    if weights.cos > 0:
        compared = student_hidden_NH if projected_hidden_NG is None else projected_hidden_NG
        student, teacher = compared.to(zero.dtype), teacher_hidden_NG.detach().to(zero.dtype)
        terms["cos"] = (1 - F.cosine_similarity(student, teacher, dim=-1)).sum() / max(attended_count, 1)

    total = sum((alpha * terms[name] for name, alpha in weights._asdict().items() if alpha > 0), start=zero)
    return LossOutput(total, torch.stack([terms[name].detach() for name in TERMS]))


def _kl(student_RV: Tensor, teacher_RV: Tensor, temperature: float) -> Tensor:
    # KL(p || q) = H(p, q) - H(p, p), both by the same kernel, so that equal logits give exactly 0.
    # T^2 keeps the gradient's size independent of T (Hinton et al. 2015, arXiv 1503.02531, section 2).
    with torch.no_grad():
        teacher_RV = teacher_RV / temperature
        target_RV = teacher_RV.softmax(dim=-1)
        entropy = F.cross_entropy(teacher_RV, target_RV, reduction="sum")
    cross_entropy = F.cross_entropy(student_RV / temperature, target_RV, reduction="sum")
    return (cross_entropy - entropy) * temperature**2


def _cross_entropy(logits_RV: Tensor, labels_R: Tensor, count: int) -> Tensor:
    return F.cross_entropy(logits_RV, labels_R, ignore_index=IGNORED, reduction="sum") / max(count, 1)
