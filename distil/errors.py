"""Errors a user can cause, the exit code of each, and how a program ends with one.

Exit codes follow sysexits(3) where it has a word for the matter, so a scheduler can act on them:
65 bad data, 70 failure at run time, 75 requeue me, 78 bad configuration.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

EXIT_DATA = 65
EXIT_RUNTIME = 70
EXIT_CONFIG = 78


class DataError(ValueError):
    """A store, text file, model folder or checkpoint that cannot be used as it is."""


class ConfigError(ValueError):
    """A recipe, ds_config or command line that contradicts itself or the machine."""


def one_line(message: object) -> str:
    """The message with all white space folded, so that a log shows it as one line."""
    return " ".join(str(message).split())


def run(main: Callable[[], int | None]) -> int:
    """Run a program's ``main`` and return its exit code; a user's mistake becomes one line on standard error.

    Anything else is our own defect: it keeps its traceback, and is summed up in a last line with exit code 70.
    Only rank 0 speaks for the mistakes that all ranks make alike; a rank that fails alone still says which it is.
    """
    try:
        return main() or 0
    except (DataError, ConfigError) as error:
        if int(os.environ.get("RANK", "0")) == 0:
            print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
        return EXIT_DATA if isinstance(error, DataError) else EXIT_CONFIG
    except KeyboardInterrupt:
        print("interrupted: the newest checkpoint is whole; the same command resumes", file=sys.stderr, flush=True)
        return 130
    except Exception as error:  # noqa: BLE001 - the last stop before the shell
        traceback.print_exc()
        rank = os.environ.get("RANK", "0")
        print(f"error: rank {rank}: {type(error).__name__}: {one_line(error)}", file=sys.stderr, flush=True)
        return EXIT_RUNTIME
