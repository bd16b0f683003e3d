"""Section ``plan``: what a plan and a micro-batch's place in it cost, from 10^5 sequences to 10^10."""

from __future__ import annotations

import time
from pathlib import Path

import data_corpus as corpus
import numpy as np
import torch
from data_fresh import MB, fresh, table
from measure import peak_bytes

from distil.data.sampler import WINDOWS_KEPT, Plan

EXPONENTS = range(5, 11)
EPOCH = 5
CONSECUTIVE, SCATTERED = 512, 200


def report(folder: Path) -> list[str]:
    """Each size in a fresh process; Markdown."""
    figures = {exponent: fresh(plan, 10**exponent) for exponent in EXPONENTS}
    first = figures[EXPONENTS[0]]
    rows = [
        [f"10^{exponent}", *(f"{value:,.{digits}f}" for value, digits in zip(row, (0, 0, 0, 1), strict=True)),
         " / ".join(f"{value / least:.1f}" for value, least in zip(row, first, strict=True))]
        for exponent, row in figures.items()
    ]  # fmt: skip
    head = "sequences | ms to make | µs a micro-batch, consecutive | µs, scattered | peak growth, MB"
    return [
        f"Lengths as above ({corpus.IN_WORDS}), no data. Places and tokens of {CONSECUTIVE} consecutive micro-batches "
        f"within epoch {EPOCH}, and of {SCATTERED} drawn from all of it, most of which compute their window anew; "
        f"those of 10^{EXPONENTS[0]} find it, as all its windows are kept ({WINDOWS_KEPT} at most).",
        "",
        *table(f"{head} | each, of those of 10^{EXPONENTS[0]}", rows),
    ]


def plan(sequences: int) -> tuple[float, float, float, float]:
    """In a process of its own: the row of figures."""
    lengths = corpus.lengths_of(sequences)
    taken: list[float] = []

    def work() -> None:
        began = time.perf_counter()
        made = Plan(lengths, corpus.BUDGET, corpus.SEED)
        taken.append((time.perf_counter() - began) * 1e3)
        first = EPOCH * made.micro_batches + made.micro_batches // 3
        drawn = np.random.default_rng(0).integers(made.micro_batches, size=SCATTERED)
        for numbers in (range(first, first + CONSECUTIVE), (EPOCH * made.micro_batches + drawn).tolist()):
            began = time.perf_counter()
            for number in numbers:
                made.places(number)
                made.tokens(number)
            taken.append((time.perf_counter() - began) / len(numbers) * 1e6)

    grown = peak_bytes(work, torch.device("cpu"))
    return (*taken, grown / MB)
