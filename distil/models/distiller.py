"""Student and loss as one module: what the engine wraps."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from distil import kernels
from distil.data.batch import PackedBatch
from distil.kernels import Head, LossOutput, triple_loss
from distil.models.comparison import Comparison
from distil.models.family import Family
from distil.models.hosted import Hosted
from distil.models.matching import QKV, hidden_loss, relation_loss
from distil.models.packed import Capture, packed_inputs
from distil.tables import Loss

# Terms that compare more than heads and last hidden states do; the kernels' own come before them.
MATCHED = ("hidden", "relations")
TERMS = (*kernels.TERMS, *MATCHED)
WEIGHTED_TERMS = (*kernels.WEIGHTED_TERMS, *MATCHED)
COMPARING = ("ce", "cos", "mse", *MATCHED)  # those that need the teacher
# Sums over predicted positions that an evaluation gathers, in this order.
EVALUATION = ("predicted", "student_right", "student_nll", "teacher_right", "teacher_nll", "agree")
EVALUATED_ROWS = 1024  # logits held at once: of a causal model every row is asked


class Counts(NamedTuple):
    """Rows by which the terms are divided: those of the whole global batch make the shares sum to the exact mean."""

    attended: int
    predicted: int


class Observed(NamedTuple):
    """What a forward of one model shows: last hidden states, those after each layer, and one layer's attention."""

    hidden_NH: Tensor
    states: list[Tensor]
    qkv: QKV | None


class Distiller(Hosted):
    """The student under the loss; its forward takes one packed micro-batch to that batch's share of it.

    Without a teacher it trains on the cross-entropy alone. ``projection`` takes the student's hidden states to the
    teacher's width where they differ; it is trained with the student and no part of it.
    """

    def __init__(
        self, student: transformers.PreTrainedModel, student_family: Family,
        teacher: transformers.PreTrainedModel | None, teacher_family: Family | None, loss: Loss,
    ) -> None:  # fmt: skip
        super().__init__(student, student_family, teacher, teacher_family)
        self._loss = loss
        self._compared = Comparison((), None, False)
        if teacher is not None:
            self._compared = Comparison.of(loss, student.config, teacher.config)
        self.projection: nn.Linear | None = None
        if self._compared.projected:
            self.projection = _projection(
                student_family.number(student.config, "hidden"), teacher_family.number(teacher.config, "hidden")
            )

    def compute(self, batch: PackedBatch, counts: Counts | None, taught: bool = True) -> LossOutput | Tensor:
        """The loss of a micro-batch as its share of ``counts``; without counts, the sums of EVALUATION instead.

        Not ``taught``, the student is compared with labels alone, and the teacher does not run.
        """
        inputs = packed_inputs(batch)
        student = self._observe(self.student, self._student_family, inputs, 0)
        student_head = self._student_family.head(self.student)
        teacher, teacher_head = self._run_teacher(inputs) if taught else (None, None)
        teacher_NG = None if teacher is None else teacher.hidden_NH
        if counts is None:
            return _evaluate(student.hidden_NH, student_head, teacher_NG, teacher_head, batch)
        projected_NG = None
        if self.projection is not None and (self._loss.alpha_cos > 0 or not taught):
            projected_NG = self.projection(student.hidden_NH)
        output = self._triple_loss(
            student.hidden_NH, student_head, teacher_NG, teacher_head, projected_NG, batch, counts
        )
        matched = self._match(student, teacher, inputs, counts)
        total = output.total + sum(getattr(self._loss, f"alpha_{name}") * value for name, value in matched.items())
        if projected_NG is not None and not taught:
            total = total + 0 * projected_NG[:1].sum()  # every parameter has a gradient in every step
        zero = output.terms.new_zeros(())
        terms = [matched[name].detach() if name in matched else zero for name in MATCHED]
        return LossOutput(total, torch.cat([output.terms, torch.stack(terms).to(output.terms.dtype)]))

    def _triple_loss(
        self, student_NH: Tensor, student_head: Head, teacher_NG: Tensor | None, teacher_head: Head | None,
        projected_NG: Tensor | None, batch: PackedBatch, counts: Counts,
    ) -> LossOutput:  # fmt: skip
        loss, causal = self._loss, self._student_family.causal
        compared = dict.fromkeys(("alpha_ce", "alpha_cos", "alpha_mse"), 0.0)
        if teacher_NG is not None:
            compared = {name: getattr(loss, name) for name in compared}
        return triple_loss(
            student_NH, student_head, teacher_NG, teacher_head, batch.labels_N,
            batch.labels_N if causal and loss.alpha_clm > 0 else None, batch.predicted_rows_M,
            projected_hidden_NG=projected_NG if teacher_NG is not None else None,
            attended_count=counts.attended, masked_count=counts.predicted, next_count=counts.predicted,
            temperature=loss.temperature, alpha_mlm=loss.alpha_mlm, alpha_clm=loss.alpha_clm, **compared,
            restrict_ce_to_mask=loss.restrict_ce_to_mask,
        )  # fmt: skip

    def _match(
        self, student: Observed, teacher: Observed | None, inputs: dict[str, Any], counts: Counts
    ) -> dict[str, Tensor]:
        """Those of MATCHED that have a weight, while there is a teacher."""
        matched: dict[str, Tensor] = {}
        if teacher is None:
            return matched
        if self._compared.pairs:
            pairs = [(student.states[own], teacher.states[other]) for own, other in self._compared.pairs]
            matched["hidden"] = hidden_loss(pairs, self.projection, counts.attended)
        if self._compared.relations is not None:
            matched["relations"] = relation_loss(
                student.qkv, teacher.qkv, inputs["padding"], self._loss.relation_heads, counts.attended,
                causal=self._student_family.causal,
            )  # fmt: skip
        return matched

    def _observe(
        self, model: transformers.PreTrainedModel, family: Family, inputs: dict[str, Any], side: int
    ) -> Observed:
        """A forward of the student (side 0) or the teacher (1), with as much of it kept as the loss compares."""
        capture = None
        if self._compared.relations is not None:
            capture = Capture(self._compared.relations[side])
            inputs = inputs | {"capture": capture}
        states = family.states(model, **inputs) if self._compared.pairs else [family.hidden(model, **inputs)]
        return Observed(states[-1], states, None if capture is None else capture.seen)

    @torch.no_grad()
    def _run_teacher(self, inputs: dict[str, Any]) -> tuple[Observed | None, Head | None]:
        teacher, family = self._teacher[0], self._teacher_family
        if teacher is None:
            return None, None
        return self._observe(teacher, family, inputs, 1), family.head(teacher)


def _projection(width: int, teacher_width: int) -> nn.Linear:
    """From the student's width to the teacher's; at first each dimension goes to its own, as weights are cut."""
    projection = nn.Linear(width, teacher_width, bias=False)
    nn.init.eye_(projection.weight)
    return projection


def _transformed(head: Head, hidden_MH: Tensor) -> tuple[Head, Tensor]:
    """A head without its transform, and what that makes of the rows."""
    return head._replace(transform=lambda rows: rows), head.transform(hidden_MH)


@torch.no_grad()
def _evaluate(
    student_NH: Tensor, student_head: Head, teacher_NG: Tensor | None, teacher_head: Head | None, batch: PackedBatch
) -> Tensor:
    sums = torch.zeros(len(EVALUATION), dtype=torch.double, device=student_NH.device)
    # Transforms once a batch: under ZeRO-3 each is a collective, and ranks may differ in how many chunks they have.
    student_head, student_MH = _transformed(student_head, student_NH[batch.predicted_rows_M])
    if teacher_head is not None:
        teacher_head, teacher_MG = _transformed(teacher_head, teacher_NG[batch.predicted_rows_M])
    labels_M = batch.labels_N[batch.predicted_rows_M]
    for first in range(0, len(labels_M), EVALUATED_ROWS):
        rows = slice(first, first + EVALUATED_ROWS)
        labels_R = labels_M[rows]
        student_RV = student_head.logits(student_MH[rows])
        teacher_RV = student_RV if teacher_head is None else teacher_head.logits(teacher_MG[rows])
        guess_R, teacher_guess_R = student_RV.argmax(-1), teacher_RV.argmax(-1)
        values = (
            torch.tensor(len(labels_R), device=labels_R.device),
            (guess_R == labels_R).sum(),
            F.cross_entropy(student_RV, labels_R, reduction="sum"),
            (teacher_guess_R == labels_R).sum(),
            F.cross_entropy(teacher_RV, labels_R, reduction="sum"),
            (guess_R == teacher_guess_R).sum(),
        )
        sums += torch.stack([value.double() for value in values])
    return sums
