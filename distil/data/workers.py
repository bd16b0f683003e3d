"""Pieces of text cut by worker processes, some ahead, their results in order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TypeVar

from distil.data.cutting import Cut, Cutter
from distil.data.pieces import Piece
from distil.errors import DataError

AHEAD = 2  # pieces in hand for each worker, so that none waits for the slowest
Key = TypeVar("Key")


def cut_all(cutter: Cutter, pieces: Iterable[tuple[Key, Piece]], workers: int) -> Iterator[tuple[Key, Cut]]:
    """What becomes of each piece, under the same key and in the same order; one worker is this very process.

    Raises DataError for what ``Cutter.cut`` refuses, and where a worker dies.
    """
    if workers == 1:
        encoder = cutter.encoder()
        for key, piece in pieces:
            yield key, cutter.cut(piece, encoder)
        return
    crew, source = _Crew(cutter), iter(pieces)
    keys: deque[Key] = deque()  # of the pieces in hand
    done: dict[int, Cut | Exception] = {}
    first = 0  # number of the oldest piece in hand
    try:
        while True:
            while len(keys) < AHEAD * workers and (found := next(source, None)):
                keys.append(found[0])
                number = first + len(keys) - 1
                if number < workers:
                    crew.hire()
                crew.add(number, found[1])
            if not keys:
                return
            while first not in done:
                done.update(crew.results())
            key, cut = keys.popleft(), done.pop(first)
            if isinstance(cut, Exception):
                raise cut
            yield key, cut
            first += 1
    finally:
        crew.dismiss()


class _Crew:
    """Worker processes, each with a line of its own: what one leaves half said when it dies blocks no other.

    (A ProcessPoolExecutor, whose workers share a pipe and its lock, hangs where one is killed while it writes.)
    """

    def __init__(self, cutter: Cutter) -> None:
        self._cutter = cutter
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self._todo: deque[tuple[int, Piece]] = deque()
        self._idle: list[Connection] = []
        self._busy: dict[Connection, int] = {}  # with which piece; -1 while starting
        # Spawned, not forked: the caller may hold threads and locks of torch, which a forked child would find as is.
        self._context = multiprocessing.get_context("spawn")
        resource_tracker.ensure_running()  # which, started by the first process, would let interrupts through to it

    def hire(self) -> None:
        """Start a worker. It inherits that interrupts are blocked: those are ours to handle."""
        mine, its = self._context.Pipe()
        process = self._context.Process(target=_work, args=(self._cutter, its), daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
            self._processes.append(process)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        its.close()
        self._busy[mine] = -1

    def add(self, number: int, piece: Piece) -> None:
        """Have a piece cut as soon as somebody is idle; never more than one at a time, so no two wait to be heard."""
        self._todo.append((number, piece))
        self._hand_out()

    def results(self) -> Iterator[tuple[int, Cut | Exception]]:
        """Wait for somebody to be done; (number, what became of it) of all who are."""
        for line in wait(list(self._busy)):
            with _alive():
                result = line.recv()
            number = self._busy.pop(line)
            self._idle.append(line)
            self._hand_out()
            if number >= 0:
                yield number, result

    def dismiss(self) -> None:
        """End all, whatever they are doing: nothing but their results is ever theirs."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for line in (*self._idle, *self._busy):
            line.close()

    def _hand_out(self) -> None:
        while self._idle and self._todo:
            line, (number, piece) = self._idle.pop(), self._todo.popleft()
            with _alive():
                line.send(piece)
            self._busy[line] = number


@contextmanager
def _alive() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise DataError(
            "a worker process died, for want of memory perhaps; run the same command again, with fewer --workers: "
            "it goes on from where it was"
        ) from error


def _work(cutter: Cutter, line: Connection) -> None:
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    encoder = cutter.encoder()
    line.send(None)  # ready: who sends earlier would wait
    while True:
        piece = line.recv()
        try:
            result = cutter.cut(piece, encoder)
        except Exception as error:  # noqa: BLE001 - the main process tells a user's mistake from our own
            error.add_note(traceback.format_exc())
            result = error
        line.send(result)
