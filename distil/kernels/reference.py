"""The triple loss in plain torch: the definition that every faster path must equal.

Sanh et al. 2019 (arXiv 1910.01108, section 3) with the optional terms of their public training code:

    L = a_ce  T^2 KL(softmax(t/T) || softmax(s/T))      over attended rows (or masked ones: restrict_ce_to_mask)
      + a_mlm cross-entropy(s, label)                   over masked rows, at T = 1
      + a_clm cross-entropy(s, next token)              over rows that have a next token
      + a_cos (1 - cos(h_s, h_t))                       over attended rows, last hidden states
      + a_mse sum_v (s_v - t_v)^2                       over the rows of KL

Each term is a sum over rows divided by a count that the caller gives: the count of the whole global batch makes the
sum over micro-batches and ranks the exact mean. Logits exist only for rows that some term needs; their statistics are
in fp32 whatever the working precision.

Shapes: N attended rows of a packed micro-batch, R rows that need logits, H and G hidden widths, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

WEIGHTED_TERMS = ("ce", "mlm", "clm", "cos", "mse")
TERMS = (*WEIGHTED_TERMS, "teacher_mlm")  # the last one is for reading: the teacher's own loss on the same masks
IGNORED = -100


class Head(NamedTuple):
    """A language-model head: logits = transform(hidden) @ weight_VH.T + bias_V."""

    transform: Callable[[Tensor], Tensor]
    weight_VH: Tensor
    bias_V: Tensor | None

    def logits(self, hidden_RH: Tensor) -> Tensor:
        """fp32 logits, shape (R, V), of the given hidden rows, multiplied in their own precision."""
        return F.linear(self.transform(hidden_RH), self.weight_VH, self.bias_V).float()


class LossOutput(NamedTuple):
    """``total``: scalar that carries the gradient. ``terms``: detached fp32 shares of each of TERMS, unweighted."""

    total: Tensor
    terms: Tensor


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
    next_count: int = 0,
    temperature: float,
    alpha_ce: float = 0.0,
    alpha_mlm: float = 0.0,
    alpha_clm: float = 0.0,
    alpha_cos: float = 0.0,
    alpha_mse: float = 0.0,
    restrict_ce_to_mask: bool = False,
) -> LossOutput:
    """The weighted loss of one packed micro-batch as its share of a global batch.

    ``labels_N`` holds the original id at masked rows and -100 elsewhere, ``next_labels_N`` the id that follows a row
    and -100 where none does. ``masked_rows_M`` are the indices of the labelled rows, in order: to look for them, as is
    done where they are not given, makes the host wait for the device. The counts are rows of the whole global batch;
    0 stands for "no such row anywhere" and gives a term of 0. Without a teacher only the cross-entropies are possible.
    Raises ValueError when shapes or terms do not go together; that labels are ids of the vocabulary is for the store
    to see to, as a look would cost a wait.
    """
    _check(
        student_hidden_NH, student_head, teacher_hidden_NG, teacher_head, labels_N, next_labels_N,
        alpha_ce + alpha_mse, alpha_cos, alpha_clm,
    )  # fmt: skip
    zero = student_hidden_NH.new_zeros((), dtype=torch.float32)
    terms = dict.fromkeys(TERMS, zero)
    masked_M = (labels_N != IGNORED).nonzero().squeeze(1) if masked_rows_M is None else masked_rows_M
    soft = alpha_ce > 0 or alpha_mse > 0
    if (soft and not restrict_ce_to_mask) or alpha_clm > 0:
        student_RV = student_head.logits(student_hidden_NH)
        student_MV = student_RV.index_select(0, masked_M)
        soft_rows, soft_count = slice(None), attended_count
        if restrict_ce_to_mask:
            soft_rows, soft_count = masked_M, masked_count
        student_soft = student_RV[soft_rows]
    else:
        student_RV = student_MV = student_soft = student_head.logits(student_hidden_NH.index_select(0, masked_M))
        soft_rows, soft_count = masked_M, masked_count

    if soft:
        with torch.no_grad():
            teacher_soft = teacher_head.logits(teacher_hidden_NG[soft_rows])
            teacher_MV = teacher_soft if soft_rows is masked_M else teacher_soft.index_select(0, masked_M)
            terms["teacher_mlm"] = _cross_entropy(teacher_MV, labels_N[masked_M], masked_count)
        if alpha_ce > 0:
            terms["ce"] = _kl(student_soft, teacher_soft, temperature) / max(soft_count, 1)
        if alpha_mse > 0:
            terms["mse"] = (student_soft - teacher_soft).square().sum() / max(soft_count, 1)
    # Also without weight: the masked-LM loss is what a reader of the curves compares runs by.
    with torch.set_grad_enabled(alpha_mlm > 0 and torch.is_grad_enabled()):
        terms["mlm"] = _cross_entropy(student_MV, labels_N[masked_M], masked_count)
    if alpha_clm > 0:
        terms["clm"] = _cross_entropy(student_RV, next_labels_N, next_count)
    if alpha_cos > 0:
        cosine_N = F.cosine_similarity(student_hidden_NH.float(), teacher_hidden_NG.detach().float(), dim=-1)
        terms["cos"] = (1 - cosine_N).sum() / max(attended_count, 1)

    weights = {"ce": alpha_ce, "mlm": alpha_mlm, "clm": alpha_clm, "cos": alpha_cos, "mse": alpha_mse}
    total = sum((alpha * terms[name] for name, alpha in weights.items() if alpha > 0), start=zero)
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


def _check(
    student_hidden: Tensor, student_head: Head, teacher_hidden: Tensor | None, teacher_head: Head | None,
    labels: Tensor, next_labels: Tensor | None, soft: float, alpha_cos: float, alpha_clm: float,
) -> None:  # fmt: skip
    if student_hidden.dim() != 2 or labels.shape != student_hidden.shape[:1]:
        raise ValueError(
            f"triple_loss: student hidden {tuple(student_hidden.shape)} and labels {tuple(labels.shape)} must be "
            "(N, H) and (N,): pack the batch first"
        )
    if alpha_clm > 0 and (next_labels is None or next_labels.shape != labels.shape):
        raise ValueError("triple_loss: alpha_clm needs next_labels_N of the shape of labels_N")
    if soft == 0 and alpha_cos == 0:
        return
    if teacher_hidden is None or teacher_head is None:
        raise ValueError("triple_loss: alpha_ce, alpha_cos and alpha_mse need a teacher")
    if teacher_hidden.shape[0] != student_hidden.shape[0]:
        raise ValueError(f"triple_loss: {teacher_hidden.shape[0]} teacher rows, {student_hidden.shape[0]} student rows")
    if alpha_cos > 0 and teacher_hidden.shape != student_hidden.shape:
        widths = f"{student_hidden.shape[1]} and {teacher_hidden.shape[1]}"
        raise ValueError(f"triple_loss: alpha_cos compares hidden states of one width, not of {widths}")
    if soft > 0 and student_head.weight_VH.shape[0] != teacher_head.weight_VH.shape[0]:
        sizes = f"{student_head.weight_VH.shape[0]} and {teacher_head.weight_VH.shape[0]}"
        raise ValueError(f"triple_loss: logits over vocabularies of {sizes} cannot be compared")
