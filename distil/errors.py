"""Errors a user can meet, the exit code of each, and how a program ends with one.

Exit codes follow sysexits(3) where it has a word for the matter, so a scheduler can act on them:
65 bad data, 70 failure at run time, 75 stopped well and to be started again, 78 bad configuration; 130 and 141 as a
shell has them for an interrupt and a closed pipe.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

EXIT_DATA = 65
EXIT_RUNTIME = 70
EXIT_REQUEUE = 75
EXIT_CONFIG = 78
EXIT_INTERRUPT = 130
EXIT_PIPE = 141
SECONDS_FOR_OTHERS = 3


class UserError(ValueError):
    """What ends in one line; ``shared`` where every rank raises the same, so that one voice is enough."""

    shared = False
    code = EXIT_CONFIG


class DataError(UserError):
    """A store, text file, model folder or checkpoint that cannot be used as it is."""

    code = EXIT_DATA


class ConfigError(UserError):
    """A recipe, ds_config or command line that contradicts itself or the machine."""


class RunError(UserError):
    """Something outside the program that failed while it ran: a disk, a rank, a network, the numbers themselves."""

    code = EXIT_RUNTIME


class LostRank(RunError):
    """Another rank has gone; ``code`` and message are those of the rank that failed first, where they are known."""

    def __init__(self, message: str, code: int = EXIT_RUNTIME) -> None:
        super().__init__(message)
        self.code = code


class Stopped(UserError):
    """The run has saved and ended early because it was asked to; ``code`` tells a scheduler what to do."""

    shared = True

    def __init__(self, message: str, code: int = EXIT_REQUEUE) -> None:
        super().__init__(message)
        self.code = code


def one_line(message: object) -> str:
    """The message with all white space folded, so that a log shows it as one line."""
    return " ".join(str(message).split())


def run(main: Callable[[], int | None]) -> int:
    """Run a program's ``main`` and return its exit code; a user's mistake becomes one line on standard error.

    Anything else is our own defect: it keeps its traceback, and is summed up in a last line with exit code 70.
    What all ranks share is told by rank 0 alone; a rank that fails alone says which it is, and one that only lost the
    others waits, so that the cause is printed first.
    """
    rank = int(os.environ.get("RANK", "0"))
    try:
        return main() or 0
    except UserError as error:
        if isinstance(error, LostRank) or (rank and error.shared):
            time.sleep(SECONDS_FOR_OTHERS)  # the launcher ends all ranks when the first one leaves
        if isinstance(error, Stopped):
            if rank == 0:
                print(f"stopped: {one_line(error)}", flush=True)
        elif not (rank and error.shared):
            print(f"error: {f'rank {rank}: ' if not error.shared and rank else ''}{one_line(error)}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        if rank == 0:
            print("interrupted", file=sys.stderr, flush=True)
        return EXIT_INTERRUPT
    except BrokenPipeError:  # whoever read our output has had enough of it, as head has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except Exception as error:  # noqa: BLE001 - the last stop before the shell
        traceback.print_exc()
        print(f"error: rank {rank}: {type(error).__name__}: {one_line(error)}", file=sys.stderr, flush=True)
        return EXIT_RUNTIME


def leave(code: int) -> NoReturn:
    """End the process at once, without the interpreter's teardown.

    In a teardown the threads of gloo and of others are destroyed in no particular order, which aborts now and then a
    rank that has finished; its launcher would report a failure. All that is to be kept has been written by then.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
