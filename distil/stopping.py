"""Being asked to stop: by a signal, a file, the clock, or because the launcher has gone."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from distil.errors import EXIT_INTERRUPT, EXIT_REQUEUE
from distil.launcher import launchers

STOP_FILE = "DISTIL_STOP_FILE"  # environment variable that names a file; where it appears, every run stops
SECONDS_BETWEEN_LOOKS = 1.0
_BEGAN = time.monotonic()  # of the process, or nearly


class StopRequest:
    """Whether this process has been asked to stop, and why. ``code`` is the exit code to leave with."""

    def __init__(self, hours: float | None = None) -> None:
        self._hours, self._interrupted = hours, False
        self.launchers = launchers()  # as early as can be: one that goes later is missed
        self.files: Sequence[Path] = ()  # of the run's own; whoever makes one asks
        self._looked = 0.0
        self.why: str | None = None
        self.hurry = False  # somebody outside waits for this process to end
        self.code = EXIT_REQUEUE
        # Signals are noted here at once, even while Python's handler waits for a long call to return.
        self.noted, self._note = socket.socketpair()
        for end in (self.noted, self._note):
            end.setblocking(False)

    def listen(self) -> None:
        """From here on signals ask, instead of ending the process. The main thread must call it."""
        signal.set_wakeup_fd(self._note.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def ask(self, why: str, code: int = EXIT_REQUEUE) -> None:
        """Ask from within; the first reason stays."""
        if self.why is None:
            self.code, self.why = code, why

    def asked(self, first: bool) -> int:
        """The exit code to stop with, 0 where nobody has asked. ``first`` ranks look for files and at the clock."""
        now = time.monotonic()
        if first and self.why is None and now - self._looked > SECONDS_BETWEEN_LOOKS:
            self._looked = now
            if self._hours is not None and now - _BEGAN > 3600 * self._hours:
                self.ask(f"--max_hours {self._hours:g} are over")
            named = os.environ.get(STOP_FILE)
            for path in (*self.files, *([Path(named)] if named else [])):
                if path.exists():
                    self.ask(f"{path} is there")
        return self.code if self.why is not None else 0

    def obeyed(self) -> None:
        """Remove the files that are the run's own, so that it can be started again."""
        for path in self.files:
            path.unlink(missing_ok=True)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted:  # once more leaves at once
                raise KeyboardInterrupt
            self._interrupted = True
            if os.environ.get("RANK", "0") == "0":
                print("interrupted: saves when the step is done; once more leaves at once", file=sys.stderr, flush=True)
            self.ask("interrupted", EXIT_INTERRUPT)
        else:
            self.ask(f"{signal.Signals(number).name} received")
