"""Section ``open``: a store of 10^9 tokens and its plan, beside the pickled list of arrays of the public script."""

from __future__ import annotations

import pickle
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import data_corpus as corpus
from data_fresh import MB, Memory, fresh, table, verdict

from distil.data.mixture import Mixture
from distil.data.store import Store

TURNS = 3
LISTED_TOKENS = 10**7
WANTED_SECONDS, WANTED_BYTES = 1.0, 200 * MB


@dataclass(frozen=True)
class Opened:
    """Seconds, what the process grew by, and what it holds in all."""

    opening: float
    planning: float
    grown: Memory
    whole: Memory


def report(folder: Path) -> list[str]:
    """Open in fresh processes, unpickle in others; Markdown."""
    prefix, pickled = corpus.store(folder), folder / "list.pickle"
    listed = write_list(prefix, pickled)
    opened = [fresh(open_store, prefix) for _ in range(TURNS)]
    unpickled = [fresh(unpickle, pickled) for _ in range(TURNS)]
    scale = corpus.TOKENS / listed
    opening, planning = (statistics.median(getattr(o, name) for o in opened) for name in ("opening", "planning"))
    grown, whole = (statistics.median(getattr(o, name).resident for o in opened) for name in ("grown", "whole"))
    theirs = statistics.median(seconds for seconds, _ in unpickled)
    held = statistics.median(memory.resident for _, memory in unpickled)
    together, list_seconds, list_bytes = opening + planning, theirs * scale, held * scale
    rows = [
        ["Store.open", f"{opening * 1e3:.1f} ms", "", ""],
        ["the plan (Mixture)", f"{planning * 1e3:.1f} ms", "", ""],
        ["both", f"{together * 1e3:.1f} ms", f"< {WANTED_SECONDS:.0f} s", verdict(together, WANTED_SECONDS, False)],
        [
            "resident growth",
            f"{grown / MB:.1f} MB",
            f"< {WANTED_BYTES / MB:.0f} MB",
            verdict(grown, WANTED_BYTES, False),
        ],
        ["resident in all, with Python, numpy and torch", f"{whole / MB:.0f} MB", "", ""],
        [f"public way, {listed / 1e6:.1f} M tokens: unpickling", f"{theirs:.2f} s", "", ""],
        ["resident growth", f"{held / MB:.1f} MB", "", ""],
        [
            "extrapolated to 10^9 tokens: unpickling",
            f"{list_seconds:.1f} s",
            "",
            f"ours 1/{list_seconds / together:,.0f}",
        ],
        ["resident growth", f"{list_bytes / MB:,.0f} MB", "", f"ours 1/{list_bytes / grown:,.0f}"],
    ]
    return [
        f"{corpus.IN_WORDS}, in uint16; medians of {TURNS} fresh processes, files in the page cache. The public way "
        "is a pickled list of numpy arrays; what its trainer makes of the list after that is left out.",
        "",
        *table("what | figure | wanted | ratio", rows),
    ]


def open_store(prefix: Path) -> Opened:
    """In a process of its own."""
    before, began = Memory.now(), time.perf_counter()
    store = Store.open(prefix)
    opened = time.perf_counter()
    mixture = Mixture([store], None, corpus.BUDGET, corpus.SEED)
    planned = time.perf_counter()
    after = Memory.now()
    assert mixture.tokens_an_epoch >= corpus.TOKENS
    return Opened(opened - began, planned - opened, after - before, after)


def write_list(prefix: Path, out: Path) -> int:
    """The store's first sequences as the public script would have left them; returns their tokens."""
    store = Store.open(prefix)
    arrays, tokens = [], 0
    while tokens < LISTED_TOKENS:
        arrays.append(store.sequence(len(arrays)).astype("uint16"))
        tokens += len(arrays[-1])
    with open(out, "wb") as file:
        pickle.dump(arrays, file, protocol=pickle.HIGHEST_PROTOCOL)
    return tokens


def unpickle(path: Path) -> tuple[float, Memory]:
    """In a process of its own: seconds, and what it grew by."""
    before, began = Memory.now(), time.perf_counter()
    with open(path, "rb") as file:
        arrays = pickle.load(file)  # noqa: S301 - written a moment ago
    taken, after = time.perf_counter() - began, Memory.now()
    assert len(arrays)
    return taken, after - before
