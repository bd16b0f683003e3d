"""A few real steps of a recipe on this machine, in no run's folder: the engine and the loss that training has.

Weights are random where the models are not here: they take as long.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from distil.config import Recipe
from distil.data.batch import Batcher, PackedBatch
from distil.data.feed import Feed
from distil.data.masking import Masker, NextToken
from distil.engine.device import DTYPES
from distil.engine.ranks import Ranks
from distil.engine.wrapped import Engine
from distil.kernels import IGNORED
from distil.models.constants import in_precision
from distil.models.distiller import Counts, Distiller
from distil.models.families import family_of
from distil.models.student import decay_groups
from distil.placement import Placement
from distil.planning.outline import Outline
from distil.planning.products import Rows

WARMING = 2  # steps that are not timed: in the second one memory of the optimiser is still new
ACCUMULATED = 4  # micro-batches of a rehearsed step at most; a CPU takes seconds for one
STEPS = 2  # at least so many are timed


class Rehearsed(NamedTuple):
    """What was timed: tokens and seconds of all steps after those that warm up."""

    steps: int
    tokens: int
    seconds: float

    @property
    def tokens_a_second(self) -> float:
        """Of this rank."""
        return self.tokens / self.seconds


def shortened(job: Outline, place: Callable[[Recipe], Placement], ranks: int = 1) -> Outline:
    """The job with a global batch that a rehearsal can afford; ``place`` places a recipe on so many ``ranks``."""
    data = job.recipe.data
    batch = data.micro_batch_size * min(ACCUMULATED, data.micro_batches) * ranks
    recipe = dataclasses.replace(job.recipe, data=dataclasses.replace(data, batch_size=batch))
    return dataclasses.replace(job, recipe=recipe, placement=place(recipe))


def rehearse(job: Outline, ranks: Ranks, at_least: float, at_least_steps: int = STEPS) -> Rehearsed:
    """Train and time steps, for ``at_least`` so many seconds, which must be 0 where several ranks are to end together.

    Tokens and seconds are this rank's.
    """
    torch.manual_seed(job.recipe.optimizer.seed)
    engine = Engine(*_module(job, ranks), job.placement, ranks)
    accumulation, batches = job.placement.accumulation, _batches(job)
    steps, seconds, tokens = -WARMING, 0.0, 0
    numbers = iter(range(10**9))
    with Feed(batches, numbers, ranks.device) as feed:
        while steps < at_least_steps or seconds < at_least:
            _wait(ranks.device)
            began, seen = time.perf_counter(), 0
            for _ in range(accumulation):
                batch = next(feed).to(ranks.device)
                counts = Counts(accumulation * len(batch.input_ids_N), accumulation * len(batch.predicted_rows_M))
                engine.micro_step(batch, counts, True)
                seen += len(batch.input_ids_N)
            _wait(ranks.device)
            steps += 1
            if steps > 0:
                seconds, tokens = seconds + time.perf_counter() - began, tokens + seen
    engine.close()
    return Rehearsed(steps, tokens, seconds)


def _module(job: Outline, ranks: Ranks) -> tuple[Distiller, list[dict]]:
    dtype = DTYPES[job.placement.precision]
    student = family_of(job.student).model_class(job.student)
    teacher, family = None, None
    if job.recipe.loss.needs_teacher:
        family = family_of(job.teacher)
        with torch.device(ranks.device):
            teacher = in_precision(family.model_class(job.teacher), dtype).eval().requires_grad_(False)
    module = Distiller(student, family_of(job.student), teacher, family, job.recipe.loss)
    return module, decay_groups(module, job.recipe.optimizer.weight_decay)


def _batches(job: Outline) -> Callable[[int], PackedBatch]:
    """Micro-batches by number: of the recipe's text where it is here, else of random ids in the planned rows."""
    mixture, masking = job.mixture, job.recipe.masking
    causal = family_of(job.student).causal
    if mixture is not None:
        objective = NextToken() if causal else Masker.from_counts(
            mixture.token_counts, mixture.stores[0].meta.special_ids, fraction=masking.mlm_fraction,
            smoothing=masking.mlm_smoothing, mask_share=masking.mask_share, keep_share=masking.keep_share,
        )  # fmt: skip
        return Batcher(mixture, objective, job.recipe.optimizer.seed).batch
    vocabulary = family_of(job.student).number(job.student, "vocabulary")
    return lambda number: _random(job.rows[number % len(job.rows)], vocabulary, number)


def _random(rows: Rows, vocabulary: int, number: int) -> PackedBatch:
    draw = np.random.default_rng(number)
    ids_N = draw.integers(vocabulary, size=rows.attended)
    labels_N = np.full(rows.attended, IGNORED)
    predicted = np.sort(draw.permutation(rows.attended)[: rows.predicted])
    labels_N[predicted] = ids_N[predicted]
    return PackedBatch.pack(ids_N, labels_N, np.array(rows.lengths, dtype=np.int32))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
