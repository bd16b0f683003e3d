"""A thread of every rank that says it lives, hears the others, and ends the job when one no longer does."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path

from distil.engine.ranks import Ranks
from distil.errors import EXIT_RUNTIME, SECONDS_FOR_OTHERS
from distil.launcher import end
from distil.stopping import StopRequest

SECONDS_BETWEEN_BEATS = 1.0
SECONDS_OF_A_PAUSE = 5.0
# Once asked to stop, nobody waits long for a rank that is gone: the launcher kills after 30 s.
SECONDS_WHEN_STOPPING = 10.0
# Files of functions in which a rank waits for others; backward waits for them in threads of its own.
WAITING = tuple(os.sep.join(p) for p in (("torch", "distributed"), ("torch", "autograd"), ("deepspeed", "comm")))
PACKAGE = str(Path(__file__).parents[1])


class Heartbeat:
    """Ends the process, with exit code 70 and the name of the rank, where another is silent or none moves.

    ``silence`` and ``hang`` are in seconds: how long a rank may say nothing (its process is stopped, killed or cut
    off), and how long all may say that they live while no micro-batch ends (something waits for ever). Where the
    launcher has gone it asks ``stop``.
    """

    def __init__(self, ranks: Ranks, stop: StopRequest, silence: float, hang: float) -> None:
        self._ranks, self._stop, self._silence, self._hang = ranks, stop, silence, hang
        self._moves, self._armed = 0, False
        self._over = threading.Event()
        # Every rank asks for every rank's word: of hundreds, less often.
        self._interval = SECONDS_BETWEEN_BEATS * max(1, ranks.world // 64)
        self._main = threading.main_thread().ident
        self._who = f"host {socket.gethostname()}, pid {os.getpid()}"

    def start(self) -> None:
        """Begin to beat; every rank must call it."""
        self._store = self._ranks.store.clone() if self._ranks.world > 1 else None
        if self._store is not None:
            self._store.set_timeout(timedelta(seconds=self._silence))
            self._say(0)
        self._ranks.wait()
        self._answered = time.monotonic()
        if self._store is not None:
            threading.Thread(target=self._guard, name="heartbeat guard", daemon=True).start()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Stop listening, once all ranks are here; every rank must call it before it leaves."""
        self._ranks.wait()
        self._over.set()
        self._thread.join()
        self._ranks.wait()  # the store goes with rank 0

    def moved(self) -> None:
        """The main thread has done a piece of work."""
        self._moves += 1

    @contextmanager
    def armed(self, armed: bool = True) -> Iterator[None]:
        """While this is open, work comes in small pieces, and its absence means that something hangs."""
        before = self._armed
        self._moves, self._armed = self._moves + 1, armed
        try:
            yield
        finally:
            self._moves, self._armed = self._moves + 1, before

    def patient(self) -> AbstractContextManager[None]:
        """While this is open a disk is waited for, however slow it is."""
        return self.armed(False)

    def _run(self) -> None:
        beat, now = 0, time.monotonic()
        heard = {rank: (now, b"") for rank in range(self._ranks.world)}
        moved = (now, -1)
        while not self._over.is_set():
            slept = time.monotonic()
            self._sleep()
            self._watch_launchers()
            beat, now = beat + 1, time.monotonic()
            if now - slept > self._interval + SECONDS_OF_A_PAUSE:
                # It was this process, or the whole job, that stood still (a suspended job, a laptop's lid).
                heard = {rank: (now, word) for rank, (_, word) in heard.items()}
                moved = (now, self._moves)
            if self._store is not None:
                heard = self._listen(heard, beat)
                self._answered = time.monotonic()
            moved = moved if self._armed and moved[1] == self._moves else (now, self._moves)
            if now - moved[0] > self._hang:
                self._hung(heard, now - moved[0])

    def _guard(self) -> None:
        """End the process where the store neither answers nor fails.

        Over a wire that is cut, torch's client gives up waiting in time, tells the server so, and waits for that.
        """
        limit = self._silence + 2 * SECONDS_FOR_OTHERS
        looked = time.monotonic()
        while not self._over.wait(self._interval):
            now = time.monotonic()
            if now - looked > self._interval + SECONDS_OF_A_PAUSE:
                self._answered = now
            looked = now
            if now - self._answered > limit:
                self._leave(f"rank 0 cannot be reached: no answer for {limit:.0f} s", aloud=True)

    def _sleep(self) -> None:
        """A beat's time, or less where a signal comes or a launcher goes."""
        handles = [self._stop.noted, *(a.handle for a in self._stop.launchers)]
        ready, _, _ = select.select(handles, [], [], self._interval)
        if self._stop.noted in ready and set(self._stop.noted.recv(64)) & {signal.SIGTERM, signal.SIGINT}:
            self._stop.hurry = True

    def _watch_launchers(self) -> None:
        for number, ancestor in enumerate(self._stop.launchers):
            if select.select([ancestor.handle], [], [], 0)[0]:
                end(self._stop.launchers[number + 1 :])
                self._stop.launchers = []
                self._stop.ask(f"{ancestor.what} has gone")
                self._stop.hurry = True
                return

    def _say(self, beat: int) -> None:
        self._store.set(f"beat/{self._ranks.rank}", f"{beat}|{self._who}|{self._where()}")

    def _listen(self, heard: dict[int, tuple[float, bytes]], beat: int) -> dict[int, tuple[float, bytes]]:
        """Say that this rank lives and note who else has; ends the process where one has not for too long."""
        others = range(self._ranks.world)
        try:
            self._say(beat)
            words = self._store.multi_get([f"beat/{rank}" for rank in others])
        except RuntimeError as error:  # the store lives in rank 0
            self._over.wait(SECONDS_FOR_OTHERS)  # the main thread may know better, or be leaving
            if not self._over.is_set():
                self._leave(f"rank 0 ({_who(heard[0][1])}) cannot be reached ({str(error)[:80]})", aloud=True)
            return heard
        now = time.monotonic()
        heard = {r: (now, w) if w != heard[r][1] else heard[r] for r, w in zip(others, words, strict=True)}
        limit = min(self._silence, SECONDS_WHEN_STOPPING) if self._stop.hurry else self._silence
        silent = [rank for rank, (at, _) in heard.items() if now - at > limit]
        if silent and not self._over.is_set():
            names = "; ".join(f"rank {rank} ({_who(heard[rank][1])})" for rank in silent)
            living = [rank for rank in others if rank not in silent]
            self._leave(
                f"{names} has been silent for {limit:.0f} s: stopped, killed or cut off",
                aloud=self._ranks.rank == min(living, default=self._ranks.rank),
            )
        return heard

    def _hung(self, heard: dict[int, tuple[float, bytes]], seconds: float) -> None:
        places = {rank: word.decode(errors="replace").split("|")[-1] for rank, (_, word) in heard.items()}
        places[self._ranks.rank] = self._where()
        # Those that wait for others wait in a collective; whoever stands elsewhere keeps them waiting.
        culprits = [rank for rank, place in places.items() if "(collective)" not in place] or list(places)
        told = "; ".join(f"rank {rank} at {places[rank]}" for rank in culprits[:8])
        mine = str(self._ranks.rank)
        first = self._store is None or self._store.compare_set("hung", "", mine).decode() == mine
        self._leave(f"no micro-batch has ended for {seconds:.0f} s: {told}", aloud=first)

    def _leave(self, message: str, aloud: bool) -> None:
        if not aloud:
            time.sleep(SECONDS_FOR_OTHERS)
        else:
            print(
                f"error: {message}; the job ends here, and the same command resumes from the newest checkpoint",
                file=sys.stderr, flush=True,
            )  # fmt: skip
        os._exit(EXIT_RUNTIME)

    def _where(self) -> str:
        """Where the main thread stands: the innermost line of this package, and whether it waits for other ranks."""
        frame = sys._current_frames().get(self._main)
        waits = False
        while frame is not None:
            name = frame.f_code.co_filename
            waits = waits or any(part in name for part in WAITING)
            if name.startswith(PACKAGE):
                place = f"{Path(name).name}:{frame.f_lineno} in {frame.f_code.co_name}"
                return place + (" (collective)" if waits else "")
            frame = frame.f_back
        return "no line of ours"


def _who(word: bytes) -> str:
    return word.decode(errors="replace").split("|")[1] if word.count(b"|") >= 2 else "never heard"
