"""Section ``batches``: masked, packed micro-batches assembled by one core from a store of 10^9 tokens."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data_corpus as corpus
import torch
from data_fresh import fresh, table, verdict

from distil.data.batch import Batcher, PackedBatch
from distil.data.sampler import generator
from distil.kernels import IGNORED

WARM_UP, COUNT = 100, 4000  # micro-batches
WANTED_TOKENS, WANTED_FILLING = 5e6, 0.97
SMOOTHINGS = (0.7, 0.0)


@dataclass(frozen=True)
class Assembled:
    """Of COUNT consecutive micro-batches: seconds by the clock and of the core, their tokens, the plan's filling."""

    clock: float
    core: float
    tokens: int
    filling: float
    parts: dict[str, float]  # seconds a micro-batch, of other COUNT ones


def report(folder: Path) -> list[str]:
    """Measure in a fresh process for each kind of mask; Markdown."""
    prefix = corpus.store(folder)
    rows: list[list[str]] = []
    parts: dict[float, dict[str, float]] = {}
    for smoothing in SMOOTHINGS:
        made: Assembled = fresh(assemble, prefix, smoothing)
        rate, core_rate = made.tokens / made.clock, made.tokens / made.core
        name = f"tokens/s, smoothing {smoothing}"
        rows.append([name, f"{rate / 1e6:.1f} M", f">= {WANTED_TOKENS / 1e6:.0f} M", verdict(rate, WANTED_TOKENS)])
        rows.append([f"{name}, by the core's own time", f"{core_rate / 1e6:.1f} M", "", ""])
        parts[smoothing] = made.parts
    measured = made.tokens / (COUNT * corpus.BUDGET)
    for name, filling in (("an epoch, by the plan", made.filling), (f"those {COUNT:,}", measured)):
        wanted = f">= {WANTED_FILLING:.0%}"
        rows.append([f"budget filled, {name}", f"{filling:.2%}", wanted, verdict(filling, WANTED_FILLING)])
    rows.append(["padding", "0 tokens", "0", "none: lengths add up to the row, and [CLS] and [SEP] stand at all ends"])
    lines = [
        f"{COUNT:,} consecutive micro-batches of up to {corpus.BUDGET:,} tokens after {WARM_UP}, on one core, one "
        f"thread, files in the page cache; lengths {corpus.IN_WORDS}.",
        "",
        *table("what | figure | wanted | ratio", rows),
    ]
    head = "µs a micro-batch | " + " | ".join(f"smoothing {smoothing}" for smoothing in SMOOTHINGS)
    by_part = [[part, *(f"{parts[s][part] * 1e6:.0f}" for s in SMOOTHINGS)] for part in made.parts]
    return [*lines, *table(head, [*by_part, ["sum", *(f"{sum(parts[s].values()) * 1e6:.0f}" for s in SMOOTHINGS)]])]


def assemble(prefix: Path, smoothing: float) -> Assembled:
    """In a process of its own: open, warm up, assemble, then the same by parts on the numbers that follow."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    batcher = corpus.batcher(prefix, smoothing)
    first = 2 * batcher.mixture.micro_batches + 12_345
    for number in range(first, first + WARM_UP):
        batcher.batch(number)
    first += WARM_UP
    began, core_began = time.perf_counter(), time.process_time()
    tokens = sum(len(batcher.batch(number).input_ids_N) for number in range(first, first + COUNT))
    clock, core = time.perf_counter() - began, time.process_time() - core_began
    assert tokens == sum(check(batcher.batch(number)) for number in range(first, first + COUNT))  # the same once more
    parts = by_parts(batcher, range(first + COUNT, first + 2 * COUNT))
    return Assembled(clock, core, tokens, batcher.mixture.plans[0].filling, parts)


def by_parts(batcher: Batcher, numbers: range) -> dict[str, float]:
    """Seconds a micro-batch that each part takes; together what ``Batcher.batch`` does, check of the plan included."""
    taken: dict[str, float] = {}

    def timed(part: str, step: Callable[..., Any], *arguments: object) -> Any:
        began = time.perf_counter()
        result = step(*arguments)
        taken[part] = taken.get(part, 0.0) + (time.perf_counter() - began) / len(numbers)
        return result

    plan, store = batcher.mixture.plans[0], batcher.mixture.stores[0]
    for number in numbers:
        batcher.mixture.locate(number)
        places = timed("plan", plan.places, number)
        timed("plan", plan.tokens, number)
        ids_N, lengths_B = timed("gather", store.gather, timed("gather", store.at, places))
        rng = timed("random generator", generator, "masks", batcher.seed, number)
        inputs_N, labels_N = timed("mask", batcher.objective.targets, ids_N, lengths_B, rng)
        timed("pack", PackedBatch.pack, inputs_N, labels_N, lengths_B)
    return taken


def check(batch: PackedBatch) -> int:
    """Tokens of the row, after a look that each belongs to a sequence, which [CLS] opens and [SEP] closes."""
    bounds = batch.cu_seqlens_B1.long()
    ids_N = torch.where(batch.labels_N == IGNORED, batch.input_ids_N, batch.labels_N)
    assert bounds[0] == 0 and int(bounds.diff().sum()) == len(ids_N) <= corpus.BUDGET
    assert (ids_N[bounds[:-1]] == corpus.SPECIAL["cls"]).all() and (
        ids_N[bounds[1:] - 1] == corpus.SPECIAL["sep"]
    ).all()
    assert not (ids_N == corpus.SPECIAL["pad"]).any()
    return len(ids_N)
