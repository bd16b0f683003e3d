"""What the sections of ``data.py`` share: fresh processes to measure in, what a process holds, tables of figures."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import astuple, dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Self

MB = 1e6
MEET_SECONDS = 300.0  # a process that failed must not leave the others waiting for ever
_barrier: Barrier | None = None  # of a process that runs together with others


@dataclass(frozen=True)
class Memory:
    """Bytes that a process holds.

    ``resident`` counts pages of mapped files too, which are the page cache's and shared; ``own`` leaves them out;
    ``proportional`` counts each page divided by the number of processes that map it.
    """

    resident: int
    own: int
    proportional: int

    @classmethod
    def now(cls) -> Self:
        """Of this process."""
        status, rollup = _fields("/proc/self/status"), _fields("/proc/self/smaps_rollup")
        return cls(status["VmRSS"], status["RssAnon"], rollup["Pss"])

    def __sub__(self, other: Memory) -> Memory:
        return Memory(*(mine - theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __add__(self, other: Memory) -> Memory:
        return Memory(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


def _fields(path: str) -> dict[str, int]:
    """Bytes of every field that the kernel gives in kB."""
    lines = (line.split() for line in Path(path).read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if words[-1] == "kB"}


def fresh(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function of a module returns in a process of its own, started for it and ended after it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def together(function: Callable[..., Any], count: int, *arguments: Any) -> list[Any]:
    """What ``function(rank, *arguments)`` returns in each of ``count`` fresh processes, which may ``meet``."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(count)
    with ProcessPoolExecutor(count, mp_context=context, initializer=_join, initargs=(barrier,)) as pool:
        return [made.result() for made in [pool.submit(function, rank, *arguments) for rank in range(count)]]


def _join(barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603 - what a process is given once
    _barrier = barrier


def meet() -> None:
    """Wait until all processes that were started together are here."""
    _barrier.wait(MEET_SECONDS)


def table(head: str, rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown: ``head`` names the columns, with | between them."""
    names = [name.strip() for name in head.split("|")]
    lines = [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def verdict(figure: float, wanted: float, more: bool = True) -> str:
    """How a figure stands to what was wanted: so many times that, or a share of it, and whether that is enough."""
    reached = figure >= wanted if more else figure <= wanted
    return f"{figure / wanted:.2f} of it{'' if reached else ': **missed**'}"
