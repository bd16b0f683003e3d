"""Pieces of text cut by worker processes, some ahead, their results in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import TypeVar

from distil.data.cutting import Cut, Cutter
from distil.data.pieces import Piece
from distil.data.words import Encoder
from distil.errors import DataError

AHEAD = 2  # pieces in hand for each worker, so that none waits for the writer
Key = TypeVar("Key")
_worker: tuple[Cutter, Encoder] | None = None  # of a worker process: made once, used for every piece


def cut_all(cutter: Cutter, pieces: Iterable[tuple[Key, Piece]], workers: int) -> Iterator[tuple[Key, Cut]]:
    """What becomes of each piece, under the same key and in the same order; one worker is this very process.

    Raises DataError for what ``Cutter.cut`` refuses, and where a worker dies.
    """
    if workers == 1:
        encoder = cutter.encoder()
        for key, piece in pieces:
            yield key, cutter.cut(piece, encoder)
        return
    # Spawned, not forked: the caller may hold threads and locks of torch, which a forked child would find as they were.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(cutter,))
    waiting: deque[tuple[Key, Future[Cut]]] = deque()
    try:
        with _all_alive():
            for key, piece in pieces:
                waiting.append((key, _submitted(pool, piece)))
                if len(waiting) > AHEAD * workers:
                    key, cut = waiting.popleft()
                    yield key, cut.result()
            for key, cut in waiting:
                yield key, cut.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, piece: Piece) -> Future[Cut]:
    """Hand out a piece. Processes that this starts inherit that interrupts are blocked: those are ours to handle."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_cut, piece)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _all_alive() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died, for want of memory perhaps; run the same command again, with fewer --workers: "
            "it goes on from where it was"
        ) from error


def _start(cutter: Cutter) -> None:
    global _worker  # noqa: PLW0603 - what a process makes once
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    _worker = cutter, cutter.encoder()


def _cut(piece: Piece) -> Cut:
    cutter, encoder = _worker
    return cutter.cut(piece, encoder)
