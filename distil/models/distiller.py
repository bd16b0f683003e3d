"""Student and loss as one module: what the engine wraps."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from distil.data.batch import PackedBatch
from distil.kernels import Head, LossOutput, triple_loss
from distil.models.families import Family
from distil.models.packed import packed_inputs, use_packed_attention
from distil.tables import Loss

# Sums over masked positions that an evaluation gathers, in this order.
EVALUATION = ("masked", "student_right", "student_nll", "teacher_right", "teacher_nll", "agree")


class Counts(NamedTuple):
    """Rows by which the terms are divided: those of the whole global batch make the shares sum to the exact mean."""

    attended: int
    masked: int
    next: int


class Distiller(nn.Module):
    """The student under the triple loss; its forward takes one packed micro-batch to that batch's share of the loss.

    The teacher is held outside the module tree: the engine must neither shard, cast nor save it. None trains on the
    cross-entropy alone.
    """

    def __init__(
        self, student: transformers.PreTrainedModel, student_family: Family,
        teacher: transformers.PreTrainedModel | None, teacher_family: Family | None, loss: Loss,
    ) -> None:  # fmt: skip
        super().__init__()
        self.student = student
        self._student_family, self._teacher_family = student_family, teacher_family
        self._teacher = [teacher]  # a list, so that nn.Module does not adopt it
        self._weights: dict[str, Any] = dataclasses.asdict(loss)
        del self._weights["normalize"]  # the caller's counts say it
        for model in (student, teacher):
            if model is not None:
                use_packed_attention(model)

    def forward(self, batch: PackedBatch, counts: Counts | None) -> LossOutput | Tensor:
        """The loss of a micro-batch as its share of ``counts``; without counts, the sums of EVALUATION instead."""
        inputs = packed_inputs(batch)
        student_NH = self._student_family.hidden(self.student, **inputs)
        student_head = self._student_family.head(self.student)
        teacher_NG, teacher_head = self._run_teacher(inputs)
        if counts is None:
            return _evaluate(student_NH, student_head, teacher_NG, teacher_head, batch)
        next_labels_N = batch.next_labels_N if self._weights["alpha_clm"] > 0 else None
        return triple_loss(
            student_NH, student_head, teacher_NG, teacher_head, batch.labels_N, next_labels_N, batch.masked_rows_M,
            attended_count=counts.attended, masked_count=counts.masked, next_count=counts.next, **self._weights,
        )  # fmt: skip

    @torch.no_grad()
    def _run_teacher(self, inputs: dict[str, Any]) -> tuple[Tensor | None, Head | None]:
        teacher, family = self._teacher[0], self._teacher_family
        if teacher is None:
            return None, None
        return family.hidden(teacher, **inputs), family.head(teacher)


@torch.no_grad()
def _evaluate(
    student_NH: Tensor, student_head: Head, teacher_NG: Tensor | None, teacher_head: Head | None, batch: PackedBatch
) -> Tensor:
    masked_M = batch.masked_rows_M
    labels_M = batch.labels_N[masked_M]
    student_MV = student_head.logits(student_NH[masked_M])
    teacher_MV = student_MV if teacher_head is None else teacher_head.logits(teacher_NG[masked_M])
    guess_M, teacher_guess_M = student_MV.argmax(-1), teacher_MV.argmax(-1)
    sums = (
        torch.tensor(len(labels_M), device=labels_M.device),
        (guess_M == labels_M).sum(),
        F.cross_entropy(student_MV, labels_M, reduction="sum"),
        (teacher_guess_M == labels_M).sum(),
        F.cross_entropy(teacher_MV, labels_M, reduction="sum"),
        (guess_M == teacher_guess_M).sum(),
    )
    return torch.stack([value.double() for value in sums])
