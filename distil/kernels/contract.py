"""What goes into the triple loss and what comes out: the names that the definition and every faster path share."""

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
        """Logits, shape (R, V), of the given hidden rows, multiplied in their own precision; fp32, or fp64 of fp64."""
        rows_RH = self.transform(hidden_RH)
        check_product("head's", hidden_RH, rows_RH, self)
        logits_RV = F.linear(rows_RH, self.weight_VH, self.bias_V)
        return logits_RV.to(statistics_dtype(logits_RV.dtype))


class LossOutput(NamedTuple):
    """``total``: scalar that carries the gradient. ``terms``: detached fp32 shares of each of TERMS, unweighted."""

    total: Tensor
    terms: Tensor


class Weights(NamedTuple):
    """Factors of the five terms; those of 0 are not trained on."""

    ce: float
    mlm: float
    clm: float
    cos: float
    mse: float

    @property
    def soft(self) -> bool:
        """Whether a term compares student and teacher logits."""
        return self.ce > 0 or self.mse > 0


def statistics_dtype(dtype: torch.dtype) -> torch.dtype:
    """In what softmaxes, sums and losses are computed: fp32, whatever the working precision; fp64 for fp64."""
    return torch.promote_types(dtype, torch.float32)


def check(
    student_hidden: Tensor, student_head: Head, teacher_hidden: Tensor | None, teacher_head: Head | None,
    labels: Tensor, next_labels: Tensor | None, masked_rows: Tensor | None, weights: Weights,
    projected_hidden: Tensor | None = None,
) -> None:  # fmt: skip
    """Raise ValueError where shapes, devices, types or terms do not go together."""
    if student_hidden.dim() != 2 or labels.shape != student_hidden.shape[:1]:
        raise ValueError(
            f"triple_loss: student hidden {tuple(student_hidden.shape)} and labels {tuple(labels.shape)} must be "
            "(N, H) and (N,): pack the batch first"
        )
    if masked_rows is not None and masked_rows.dim() != 1:
        raise ValueError(f"triple_loss: masked_rows_M of shape {tuple(masked_rows.shape)} must be (M,)")
    if weights.clm > 0 and (next_labels is None or next_labels.shape != labels.shape):
        raise ValueError("triple_loss: alpha_clm needs next_labels_N of the shape of labels_N")
    tensors = {"student_hidden_NH": student_hidden, "labels_N": labels, "next_labels_N": next_labels}
    tensors |= {"masked_rows_M": masked_rows, "projected_hidden_NG": projected_hidden}
    tensors |= _parts("student", student_head)
    if weights.soft or weights.cos > 0:
        _check_teacher(student_hidden, student_head, teacher_hidden, teacher_head, weights)
        if weights.cos > 0:
            _check_compared(student_hidden, teacher_hidden, projected_hidden)
        tensors |= {"teacher_hidden_NG": teacher_hidden, **_parts("teacher", teacher_head)}
    for name, tensor in tensors.items():
        if tensor is not None and tensor.device != student_hidden.device:
            there = f"{name} on {tensor.device}"
            raise ValueError(f"triple_loss: {there}, student_hidden_NH on {student_hidden.device}: use one device")
        whole = name in ("labels_N", "next_labels_N", "masked_rows_M")
        if tensor is not None and (tensor.dtype != torch.int64 if whole else not tensor.is_floating_point()):
            raise ValueError(f"triple_loss: {name} of {tensor.dtype}: {'int64' if whole else 'floats'} are wanted")
    if labels.device.type == "cpu":  # elsewhere a look would make the host wait; there such a row's loss is NaN
        _check_labels("labels_N", labels, len(student_head.weight_VH))
        if masked_rows is not None and not torch.equal(masked_rows, (labels != IGNORED).nonzero().squeeze(1)):
            raise ValueError("triple_loss: masked_rows_M are not the labelled rows of labels_N, each once, in order")
        if next_labels is not None:
            _check_labels("next_labels_N", next_labels, len(student_head.weight_VH))


def _parts(name: str, head: Head) -> dict[str, Tensor | None]:
    return {f"{name} weight_VH": head.weight_VH, f"{name} bias_V": head.bias_V}


def _check_teacher(
    student_hidden: Tensor, student_head: Head, teacher_hidden: Tensor | None, teacher_head: Head | None,
    weights: Weights,
) -> None:  # fmt: skip
    if teacher_hidden is None or teacher_head is None:
        raise ValueError("triple_loss: alpha_ce, alpha_cos and alpha_mse need a teacher")
    if teacher_hidden.dim() != 2:
        raise ValueError(f"triple_loss: teacher hidden {tuple(teacher_hidden.shape)} must be (N, G)")
    if teacher_hidden.shape[0] != student_hidden.shape[0]:
        raise ValueError(f"triple_loss: {teacher_hidden.shape[0]} teacher rows, {student_hidden.shape[0]} student rows")
    if weights.soft and student_head.weight_VH.shape[0] != teacher_head.weight_VH.shape[0]:
        sizes = f"{student_head.weight_VH.shape[0]} and {teacher_head.weight_VH.shape[0]}"
        raise ValueError(f"triple_loss: logits over vocabularies of {sizes} cannot be compared")


def _check_compared(student_hidden: Tensor, teacher_hidden: Tensor, projected_hidden: Tensor | None) -> None:
    if projected_hidden is None and teacher_hidden.shape != student_hidden.shape:
        widths = f"{student_hidden.shape[1]} and {teacher_hidden.shape[1]}"
        raise ValueError(
            f"triple_loss: alpha_cos compares hidden states of one width, not of {widths}: give projected_hidden_NG, "
            "the student's taken to the teacher's width"
        )
    if projected_hidden is not None and projected_hidden.shape != teacher_hidden.shape:
        shapes = f"{tuple(projected_hidden.shape)} must be (N, G) as the teacher's are, {tuple(teacher_hidden.shape)}"
        raise ValueError(f"triple_loss: projected hidden {shapes}")


def _check_labels(name: str, labels: Tensor, vocabulary: int) -> None:
    wrong = labels[(labels != IGNORED) & ((labels < 0) | (labels >= vocabulary))]
    if len(wrong):
        raise ValueError(f"triple_loss: {name} holds {int(wrong[0])}, no id of a vocabulary of {vocabulary}")


def check_product(name: str, hidden_RH: Tensor, rows_RH: Tensor, head: Head) -> None:
    """Raise ValueError where a head's parts do not go with ``rows_RH``, which its transform has made of hidden rows."""
    weight_VH, bias_V = head.weight_VH, head.bias_V
    if rows_RH.dim() != 2 or len(rows_RH) != len(hidden_RH):
        raise ValueError(f"triple_loss: the {name} transform made {tuple(rows_RH.shape)} of {len(hidden_RH)} rows")
    if weight_VH.dim() != 2 or not len(weight_VH) or rows_RH.shape[1] != weight_VH.shape[1]:
        shapes = f"{tuple(rows_RH.shape)} and weight {tuple(weight_VH.shape)}"
        raise ValueError(f"triple_loss: {name} rows {shapes} cannot be multiplied")
    if bias_V is not None and bias_V.shape != weight_VH.shape[:1]:
        raise ValueError(f"triple_loss: {name} bias {tuple(bias_V.shape)}, weight {tuple(weight_VH.shape)}")
    for part in () if torch.is_autocast_enabled(rows_RH.device.type) else (weight_VH, bias_V):
        if part is not None and part.dtype != rows_RH.dtype:
            raise ValueError(f"triple_loss: {name} rows of {rows_RH.dtype} and head of {part.dtype}: cast one of them")
