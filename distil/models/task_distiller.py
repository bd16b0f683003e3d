"""Student and a task's loss as one module: what the engine wraps when a model is fine-tuned, with a teacher or without.

    L = a_task  the task's own loss
      + a_ce    T^2 KL(softmax(t/T) || softmax(s/T))    of a regression (s - t)^2
      + a_cos   (1 - cos(h_s, h_t))                     last hidden states of the token that stands for the sequence

The task's own loss is the cross-entropy of a classification's labels, the squared error of a regression, and of SPANS
the mean of the cross-entropies of the answer's first and last place, each among the tokens of its sequence, as in
Devlin et al. 2019 (arXiv 1810.04805, section 4.2); their KL is the mean of the two, too. Hinton et al. 2015 (arXiv
1503.02531) for KL at T. Logits are compared in fp32 whatever the working precision.

Shapes: N packed tokens of B sequences, L the longest, H hidden, C outputs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor
from torch.autograd.function import once_differentiable

from distil.errors import ConfigError
from distil.kernels import LossOutput
from distil.kernels.contract import statistics_dtype
from distil.models.family import Family
from distil.models.hosted import Hosted
from distil.models.packed import Padding
from distil.models.task_heads import run, task_inputs
from distil.tasks.batch import TaskBatch
from distil.tasks.tables import TaskLoss
from distil.tasks.task import CLASSIFICATION, SPANS

TERMS = ("task", "ce", "cos")


class TaskDistiller(Hosted):
    """A model with a head for tasks of ``kind`` under its loss; both families are those of ``task_family``.

    Raises ConfigError where the loss needs a teacher and there is none, or compares what the two have not alike.
    """

    def __init__(
        self, student: transformers.PreTrainedModel, student_family: Family, kind: str,
        teacher: transformers.PreTrainedModel | None, teacher_family: Family | None, loss: TaskLoss,
    ) -> None:  # fmt: skip
        super().__init__(student, student_family, None if teacher is None else teacher.eval(), teacher_family)
        check_comparable(student, student_family, teacher, teacher_family, loss)
        self._kind, self._loss = kind, loss

    def compute(self, batch: TaskBatch, examples: int | None) -> LossOutput | Tensor:
        """The loss of a micro-batch, each term the sum over its sequences divided by ``examples``.

        With the count of the whole global batch the shares of its micro-batches sum to the exact mean. ``terms`` are
        those of TERMS, 0 where they have no weight. Without ``examples`` the logits in fp32: (B, C), of SPANS (N, 2).
        """
        inputs = task_inputs(batch)
        logits, rows_BH = run(self.student, self._student_family, self._kind, inputs)
        if examples is None:
            return logits
        loss, padding = self._loss, inputs["padding"]
        sums = dict.fromkeys(TERMS, logits.new_zeros(()))
        if loss.alpha_task > 0:
            sums["task"] = task_loss(self._kind, self._by_sequence(logits, padding), batch.labels_B)
        if loss.needs_teacher:
            with torch.no_grad():
                theirs, their_rows_BH = run(self._teacher[0], self._teacher_family, self._kind, inputs)
            if loss.alpha_ce > 0:
                pair = (self._by_sequence(each, padding) for each in (logits, theirs))
                sums["ce"] = soft_loss(self._kind, *pair, loss.temperature)
            if loss.alpha_cos > 0:
                sums["cos"] = cosine_loss(rows_BH, their_rows_BH)
        total = sum(getattr(loss, f"alpha_{name}") * value for name, value in sums.items()) / examples
        return LossOutput(total, torch.stack([value.detach() for value in sums.values()]) / examples)

    def _by_sequence(self, logits: Tensor, padding: Padding) -> Tensor:
        """Logits (B, C) as they are; those of SPANS as (2, B, L), -inf where there is no token."""
        if self._kind != SPANS:
            return logits
        return padding.pad(logits.T[None, :, :, None], -torch.inf).squeeze(-1).transpose(0, 1)


def check_comparable(
    student: transformers.PreTrainedModel, student_family: Family, teacher: transformers.PreTrainedModel | None,
    teacher_family: Family | None, loss: TaskLoss,
) -> None:  # fmt: skip
    """Raise ConfigError where the loss needs a teacher and there is none, or compares what the two have not alike."""
    if not loss.needs_teacher:
        return
    if teacher is None:
        raise ConfigError(
            "alpha_ce and alpha_cos compare with a teacher, and there is none; give --teacher, or 0 for both"
        )
    own, other = student.config.num_labels, teacher.config.num_labels
    if loss.alpha_ce > 0 and own != other:
        raise ConfigError(f"alpha_ce compares outputs, of which the student has {own} and the teacher {other}")
    own, other = student_family.number(student.config, "hidden"), teacher_family.number(teacher.config, "hidden")
    if loss.alpha_cos > 0 and own != other:
        raise ConfigError(
            f"alpha_cos compares hidden states: the student's have {own} dimensions, the teacher's {other}; give "
            "--alpha_cos 0, or models of one width"
        )


def task_loss(kind: str, logits: Tensor, labels_B: Tensor) -> Tensor:
    """The task's own loss, summed over sequences; logits (B, C), of SPANS (2, B, L)."""
    if kind == SPANS:
        return sum(F.cross_entropy(logits[i], labels_B[:, i], reduction="sum") for i in range(2)) / 2
    if kind == CLASSIFICATION:
        return F.cross_entropy(logits, labels_B, reduction="sum")
    return (logits.squeeze(1) - labels_B.to(logits.dtype)).square().sum()


def soft_loss(kind: str, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """How far the student's outputs are from the teacher's, summed over sequences; logits as for ``task_loss``.

    A regression has no distribution that T could soften: there it is the squared difference.
    """
    if kind == SPANS:
        return _SoftDivergence.apply(student, teacher, temperature) / 2
    if kind == CLASSIFICATION:
        return _SoftDivergence.apply(student, teacher, temperature)
    return (student - teacher).square().sum()


def cosine_loss(student_BH: Tensor, teacher_BH: Tensor) -> Tensor:
    """1 - cosine of pairs of rows, summed; half the squared distance of unit vectors, so exactly 0 of equal ones."""
    units = (F.normalize(rows_BH.to(statistics_dtype(rows_BH.dtype)), dim=-1) for rows_BH in (student_BH, teacher_BH))
    return F.mse_loss(*units, reduction="sum") / 2


class _SoftDivergence(torch.autograd.Function):
    """T^2 KL(softmax(t/T) || softmax(s/T)) over the last dimension, summed over all others.

    The gradient, T (softmax(s/T) - softmax(t/T)), is written out: of equal logits it is exactly 0, and so it is where
    both are -inf.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        log_student, log_teacher = ((logits / temperature).log_softmax(-1) for logits in (student, teacher))
        likely = log_teacher.exp()
        ctx.save_for_backward(log_student.exp() - likely)
        ctx.temperature = temperature
        apart = torch.where(likely > 0, likely * (log_teacher - log_student), 0)  # 0 log 0 is 0
        return temperature**2 * apart.sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (excess,) = ctx.saved_tensors
        return upstream * ctx.temperature * excess, None, None
