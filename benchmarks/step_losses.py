"""Losses of the published step and of ours over some steps: same start, same batches and masks, fp32, no dropout.

The published step divides each term by a micro-batch's own rows, so ours runs with ``normalize = micro_batch``.
"""

from __future__ import annotations

import argparse
import copy
from typing import NamedTuple

import torch
from step_published import PaddedBatch, Published
from step_setting import job_of

from distil.checkpoint.manifest import Position
from distil.distillation import Distillation
from distil.engine.ranks import start_ranks, stop_ranks
from distil.engine.wrapped import Engine
from distil.models.distiller import Distiller
from distil.models.student import decay_groups
from distil.stepping import Stepper


class Losses(NamedTuple):
    """Of each step, by the published step and by ours."""

    published: list[float]
    ours: list[float]

    @property
    def apart(self) -> float:
        """The largest difference, as a share of the published loss."""
        return max(abs(a - b) / a for a, b in zip(*self, strict=True))

    def told(self) -> str:
        """A line for people."""
        first, last = (f"{losses[0]:.6f} to {losses[-1]:.6f}" for losses in self), len(self.ours)
        published, ours = first
        return f"over {last} steps in fp32: published {published}, ours {ours}; at most {self.apart:.1e} apart"


def losses(options: argparse.Namespace) -> Losses:
    """Train both over ``options.losses`` steps."""
    ranks = start_ranks()
    try:
        job = job_of(options, "fp32", ranks.device, dropout=0.0, normalize="micro_batch", steps=options.losses)
        teacher, family = job.load_teacher(torch.float32)
        student = job.make_student(teacher).model
        stock = [copy.deepcopy(model) for model in (student, teacher)]
        for model in stock:
            model.set_attn_implementation("sdpa")
        published = Published(*stock, job.recipe.loss, job.recipe.optimizer, job.total_steps, None, ranks.device)
        module = Distiller(student, job.shape.family, teacher.to(ranks.device), family, job.recipe.loss)
        engine = Engine(module, decay_groups(module, job.recipe.optimizer.weight_decay), job.placement, ranks)
        work, pad = Distillation(job), job.tokenizer.pad_token_id
        found = Losses([], [])
        with Stepper(work, engine, ranks, Position(0, 0, 0), lambda: None) as steps:
            for step in range(options.losses):
                numbers = steps.global_batch(steps.at.micro_batch)
                found.published.append(published.step([PaddedBatch.of(work.batch(n), pad) for n in numbers]))
                terms = dict(zip(work.terms, steps.step().tolist(), strict=True))
                found.ours.append(sum(alpha * terms[name] for name, alpha in work.weights(step).items()))
        engine.close()
        return found
    finally:
        stop_ranks()
