"""Distillation on text as a workload: the recipe's terms over packed micro-batches, and held-out figures."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from distil.data.batch import PackedBatch, heldout_batches
from distil.engine.ranks import Ranks
from distil.engine.wrapped import Engine
from distil.evaluation.heldout import Heldout
from distil.job import Job
from distil.models.distiller import COMPARING, EVALUATION, TERMS, WEIGHTED_TERMS
from distil.monitor import perplexity


class Distillation:
    """The workload of a job (see ``distil.workload.Workload``)."""

    terms = TERMS
    judged_untrained = True

    def __init__(self, job: Job) -> None:
        self._job = job
        self.run, self.optimizer = job.recipe.run, job.recipe.optimizer
        self.total_steps, self.stop_step = job.total_steps, job.stop_step
        self.micro_batches, self.accumulation = job.micro_batches, job.placement.accumulation
        self.batch: Callable[[int], PackedBatch] = job.batcher().batch
        self._counts = lru_cache(4)(job.counts)  # of a global batch: asked for by each of its micro-batches
        self._predicts = job.shape.family.objective
        self._heldout = heldout_batches(job.heldout, self.run.heldout_tokens, causal=job.shape.family.causal)

    def tokens(self, numbers: range) -> int:
        """Tokens in these micro-batches."""
        return self._counts(numbers).attended

    def given(self, number: int, numbers: range, step: int) -> tuple[Any, ...]:
        """The counts by which terms are divided, and whether the teacher is compared with."""
        counts = self._counts(numbers)
        if self._job.recipe.loss.normalize == "micro_batch":
            own = self._job.counts(range(number, number + 1))
            counts = type(own)(*(self.micro_batches * rows for rows in own))
        return counts, step < self._job.kd_steps

    def weights(self, step: int) -> dict[str, float]:
        """Weights of the terms in the loss of a step."""
        off = () if step < self._job.kd_steps else COMPARING
        alphas = {name: getattr(self._job.recipe.loss, f"alpha_{name}") for name in WEIGHTED_TERMS}
        return {name: alpha for name, alpha in alphas.items() if alpha > 0 and name not in off}

    def curves(self, raw: dict[str, float], numbers: range, step: int) -> dict[str, float]:
        """Of what is predicted: the loss, also without weight, because readers compare runs by it, and its share."""
        predicts, counts = self._predicts, self._counts(numbers)
        values = {f"loss/{predicts}": raw["mlm"]}  # the kernels' name for the loss of whatever the labels are
        if self._job.recipe.loss.compares_logits and step < self._job.kd_steps:
            values[f"teacher/{predicts}_loss"] = raw["teacher_mlm"]
        values[f"data/{'masked' if predicts == 'mlm' else 'predicted'}_fraction"] = counts.predicted / counts.attended
        values["data/epoch"] = numbers.stop / self._job.mixture.micro_batches
        return values

    def evaluate(self, engine: Engine, ranks: Ranks, moved: Callable[[], None]) -> dict[str, float]:
        """Held-out figures of the student; every rank takes its share of the batches."""
        if not self._heldout:
            return {}
        sums = torch.zeros(len(EVALUATION), dtype=torch.double, device=ranks.device)
        for number, counts in ranks.turns(len(self._heldout)):
            result = engine.evaluate(self._heldout[number].to(ranks.device), None)
            sums += result if counts else 0 * result
            moved()
        figures = Heldout.from_sums(ranks.sum(sums))
        values = {f"heldout/{self._predicts}_accuracy": figures.accuracy, "heldout/perplexity": perplexity(figures.nll)}
        if self._job.comparable:
            values |= {"heldout/agreement": figures.agreement, "heldout/teacher_accuracy": figures.teacher_accuracy}
        return values
