"""Fine-tuning as a workload: sequences of a task in a computed order, and the task's own metrics."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import transformers

from distil.engine.ranks import Ranks
from distil.engine.wrapped import Engine
from distil.evaluation.judging import Predictions, agreement, predictions
from distil.finetuning.job import FineTuningJob
from distil.models.family import Family
from distil.models.packed import use_packed_attention
from distil.models.task_distiller import TERMS
from distil.models.task_heads import run, task_inputs
from distil.tasks.batch import TaskBatch
from distil.tasks.metrics import mean_percent, score
from distil.tasks.order import Order

Teacher = tuple[transformers.PreTrainedModel, Family]
Scores = dict[str, dict[str, float]]  # by split and metric, as fractions


class FineTuningWork:
    """The workload of a job (see ``distil.workload.Workload``).

    ``scores`` are those of the last evaluation, ``agreed`` the shares of examples of which student and teacher say the
    same.
    """

    terms = TERMS
    judged_untrained = False  # what a head of random numbers says is worth nobody's time

    def __init__(self, job: FineTuningJob, teacher: Teacher | None) -> None:
        numbers = job.numbers
        self._job, self._teacher = job, teacher
        if teacher is not None:  # asked also where no term of the loss needs it
            use_packed_attention(teacher[0])
        self.run, self.optimizer = numbers.run, numbers.optimizer
        self.total_steps, self.stop_step = job.total_steps, job.stop_step
        self.micro_batches, self.accumulation = numbers.data.micro_batches, job.placement.accumulation
        self._order = Order(len(job.train), numbers.optimizer.seed)
        self._lengths = job.train.lengths
        self._tokens = lru_cache(4)(self._count_tokens)
        self._of_teacher: dict[str, Predictions] = {}
        self.scores: Scores = {}
        self.teacher_scores: Scores = {}
        self.agreed: dict[str, float] = {}

    def batch(self, number: int) -> TaskBatch:
        """The sequences of a micro-batch, in the order's order."""
        return TaskBatch.of(self._job.train, self._sequences(range(number, number + 1)))

    def _sequences(self, numbers: range) -> np.ndarray:
        size = self._job.numbers.data.micro_batch_size
        return self._order.numbers(numbers.start * size, numbers.stop * size)

    def tokens(self, numbers: range) -> int:
        """Tokens in these micro-batches."""
        return self._tokens(numbers)

    def _count_tokens(self, numbers: range) -> int:
        return int(self._lengths[self._sequences(numbers)].sum())

    def given(self, number: int, numbers: range, step: int) -> tuple[Any, ...]:
        """Sequences in the global batch, by which every term is divided."""
        return (self._job.numbers.data.batch_size,)

    def weights(self, step: int) -> dict[str, float]:
        """Weights of the terms in the loss, the same in every step."""
        alphas = {name: getattr(self._job.numbers.loss, f"alpha_{name}") for name in TERMS}
        return {name: alpha for name, alpha in alphas.items() if alpha > 0}

    def curves(self, raw: dict[str, float], numbers: range, step: int) -> dict[str, float]:
        """How often the text has been seen."""
        return {"data/epoch": numbers.stop * self._job.numbers.data.micro_batch_size / len(self._job.train)}

    def evaluate(self, engine: Engine, ranks: Ranks, moved: Callable[[], None]) -> dict[str, float]:
        """The task's metrics on its splits, and how far the teacher is agreed with."""
        self._judge_teacher(ranks, moved)
        predicted = self._predictions(lambda batch: engine.evaluate(batch, None), ranks, moved)
        self.scores = self._scores(predicted)
        values = {f"{split}/{name}": value for split, of in self.scores.items() for name, value in of.items()}
        for split, theirs in self._of_teacher.items():
            if (share := agreement(self._job.task, predicted[split], theirs)) is not None:
                self.agreed[split] = values[f"{split}/agreement"] = share
        return values | {"score": mean_percent(self.scores)}

    def _judge_teacher(self, ranks: Ranks, moved: Callable[[], None]) -> None:
        """What the teacher says, asked once."""
        if self._teacher is None or self._of_teacher:
            return
        model, family = self._teacher
        kind = self._job.task.kind

        @torch.no_grad()
        def forward(batch: TaskBatch) -> torch.Tensor:
            return run(model, family, kind, task_inputs(batch))[0]

        self._of_teacher = self._predictions(forward, ranks, moved)
        self.teacher_scores = self._scores(self._of_teacher)

    def _predictions(
        self, forward: Callable[[TaskBatch], torch.Tensor], ranks: Ranks, moved: Callable[[], None]
    ) -> dict[str, Predictions]:
        """By split, of all examples, on every rank; each rank computes its share."""
        return {
            split.name: predictions(self._job.task, split, forward, ranks, moved) for split in self._job.splits
        }  # fmt: skip

    def _scores(self, predicted: dict[str, Predictions]) -> Scores:
        task = self._job.task
        return {split.name: score(task, predicted[split.name], split.examples) for split in self._job.splits}
