"""The launcher's processes above this one: whether they still live, and what to do where one has gone.

DeepSpeed's launcher is two processes, ``deepspeed`` and ``launch.py``; the second starts the ranks. Ended by a signal,
the first leaves the second and the ranks behind; the second leaves the ranks, and the first then reports success.
"""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Ancestor:
    """A process above this one; ``handle``, a pidfd, is readable once it has ended."""

    what: str
    pid: int
    handle: int


def launchers() -> list[Ancestor]:
    """DeepSpeed's processes that started this one, nearest first; none without it, or where the system cannot tell."""
    found = []
    pid = os.getppid()
    for what, sign in (("DeepSpeed's launch.py", "deepspeed.launcher.launch"), ("deepspeed", "deepspeed")):
        if pid <= 1 or not any(sign in part for part in _command(pid)[:4]):
            break
        try:
            found.append(Ancestor(what, pid, os.pidfd_open(pid)))
        except (AttributeError, OSError):  # not Linux, or it has just ended
            break
        pid = _parent(pid)
    return found


def end(above: list[Ancestor]) -> None:
    """Tell the launchers above one that was killed to end too: they would report that all is well."""
    for ancestor in above:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(ancestor.handle, signal.SIGTERM)


def _command(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        # The name, in brackets, may hold anything; the parent is the second field after it.
        return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0
