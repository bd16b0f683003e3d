"""Section ``ranks``: what four ranks on one machine hold together while they assemble batches of 10^9 tokens."""

from __future__ import annotations

from functools import reduce
from operator import add
from pathlib import Path

import data_corpus as corpus
import torch
from data_fresh import MB, Memory, fresh, meet, table, together
from data_open import unpickle, write_list

RANKS, COUNT = 4, 2000  # micro-batches, of all ranks together


def report(folder: Path) -> list[str]:
    """Let the ranks assemble, then see what they hold; Markdown."""
    prefix, pickled = corpus.store(folder), folder / "list.pickle"
    opened, worked = (reduce(add, stage) for stage in zip(*together(rank_of, RANKS, prefix), strict=True))
    listed = write_list(prefix, pickled)
    _, held = fresh(unpickle, pickled)
    lists = RANKS * held.resident * corpus.TOKENS / listed
    rows = [["4 pickled lists, extrapolated from "
             f"{listed / 1e6:.0f} M tokens: resident", f"{lists / MB:,.0f} MB", "1"]]  # fmt: skip
    for stage, grown in (("opened", opened), (f"after {COUNT:,} micro-batches", worked)):
        for what, size in (
            ("resident, shared pages counted for each", grown.resident),
            ("shared pages counted once (PSS)", grown.proportional),
            ("without mapped files, which are page cache", grown.own),
        ):
            rows.append([f"ours, {stage}: {what}", f"{size / MB:,.0f} MB", f"1/{lists / size:,.0f}"])
    return [
        f"{RANKS} processes, each with the store open and its quarter of {COUNT:,} consecutive micro-batches of "
        f"{corpus.BUDGET:,} tokens assembled, all alive when measured; growth of all together, in all that a rank "
        "does: store, plan, masks, batches.",
        "",
        *table("what | figure | ratio", rows),
    ]


def rank_of(rank: int, prefix: Path) -> tuple[Memory, Memory]:
    """In a process of its own; the others wait wherever it measures, as shares of pages depend on who is there."""
    torch.set_num_threads(1)
    stages = [_measured()]
    batcher = corpus.batcher(prefix, 0.7)
    stages.append(_measured())
    for number in range(rank, COUNT, RANKS):
        batcher.batch(number)
    stages.append(_measured())
    before, opened, worked = stages
    return opened - before, worked - before


def _measured() -> Memory:
    meet()
    memory = Memory.now()
    meet()
    return memory
