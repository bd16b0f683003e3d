"""Held-out figures: accuracy, perplexity and agreement with the teacher, of masked or next tokens, always the same."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import transformers
from torch import Tensor
from tqdm import tqdm

from distil.data.batch import PackedBatch
from distil.models.distiller import EVALUATION, Distiller
from distil.models.families import family_of
from distil.tables import Loss


@dataclass(frozen=True)
class Heldout:
    """Figures over so many ``predicted`` tokens; accuracies and agreement are shares, nll is in nats a token."""

    predicted: int
    accuracy: float
    nll: float
    teacher_accuracy: float
    teacher_nll: float
    agreement: float

    @classmethod
    def from_sums(cls, sums: Tensor) -> Heldout:
        """From sums in the order of EVALUATION."""
        s = dict(zip(EVALUATION, sums.tolist(), strict=True))
        n = max(s["predicted"], 1)
        return cls(
            int(s["predicted"]), s["student_right"] / n, s["student_nll"] / n,
            s["teacher_right"] / n, s["teacher_nll"] / n, s["agree"] / n,
        )  # fmt: skip


def compare(
    student: transformers.PreTrainedModel, teacher: transformers.PreTrainedModel | None,
    batches: Iterable[PackedBatch], loss: Loss, title: str,
) -> Heldout:  # fmt: skip
    """Figures of a student beside its teacher (itself where there is none), with both as they are loaded."""
    teacher_family = family_of(teacher.config) if teacher is not None else None
    distiller = Distiller(student, family_of(student.config), teacher, teacher_family, loss).eval()
    device = next(student.parameters()).device
    sums = torch.zeros(len(EVALUATION), dtype=torch.double, device=device)
    with torch.no_grad():
        for batch in tqdm(list(batches), desc=title, unit="batch", disable=None, leave=False):
            sums += distiller(batch.to(device), None)
    return Heldout.from_sums(sums)
