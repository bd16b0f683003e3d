"""The folder of a run: whose it is, whether it is finished, and which one is free."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from distil.config import completed
from distil.errors import ConfigError, DataError
from distil.folder import read_object, sync, write_whole
from distil.identity import difference

RUN = "run.json"
RESULTS = "results.json"  # what a run came to; its "step" says how far it went
STUDENT, MODEL = "student", "model"  # folder of the export: of a pretraining, of a fine-tuning
DRAFT = f".{RUN}"  # while it is written
LOCK = ".lock"


class Job(Protocol):
    """As much of what is to be run as its folder needs."""

    @property
    def name(self) -> str:
        """What a folder of it is called."""

    @property
    def stop_step(self) -> int:
        """Where it ends."""

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run, as plain values."""


def check(folder: Path, job: Job) -> None:
    """Raise ConfigError where ``folder`` holds anything but this very run; nothing is written."""
    if (folder / RUN).exists():
        apart = _apart(folder, job)
        if apart:
            raise ConfigError(
                f"output directory {folder} holds another run ({apart}); give the same options to resume it, "
                "or another --output_dir"
            )
    elif folder.exists() and not unused(folder):
        raise ConfigError(f"output directory {folder} exists and holds no run of ours; give another --output_dir")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process alone, made if it is not there; a lock that dies with the process.

    Raises ConfigError naming the process that holds it, DataError where it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError as error:
        raise DataError(f"output directory {folder} cannot be written: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ConfigError(
                f"output directory {folder} is in use by {file.read(200).strip() or 'another process'}; wait for it, "
                "stop it, or give another --output_dir"
            ) from error
        except OSError:
            pass  # a file system without locks: nothing can be told, and nothing is
        file.truncate(0)
        job = f", SLURM job {os.environ['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in os.environ else ""
        file.write(f"process {os.getpid()} on {socket.gethostname()}{job}, since {time.strftime('%F %T')}\n")
        file.flush()
        try:
            yield
        finally:
            if unused(folder):  # nothing came of it, so nothing is left
                for name in (DRAFT, LOCK):
                    (folder / name).unlink(missing_ok=True)
                with suppress(OSError):
                    folder.rmdir()


def claim(folder: Path, job: Job) -> None:
    """Make ``folder`` this job's. Raises ConfigError as ``check`` does, DataError where it cannot be written."""
    check(folder, job)
    if (folder / RUN).exists():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / RUN, json.dumps(job.identity(), indent=2) + "\n")
        sync(folder.parent)
    except OSError as error:
        raise DataError(f"output directory {folder} cannot be written: {error.strerror}") from error


def finished(folder: Path, job: Job) -> bool:
    """Whether the run in ``folder`` has results of the job's last step. Raises DataError for damaged ones."""
    path = folder / RESULTS
    if not path.exists():
        return False
    step = read_object(path, "remove it to measure again").get("step")
    if type(step) is not int:
        raise DataError(f"{path} cannot be read (it has no step); remove it to measure again")
    return step >= job.stop_step


def free_folder(root: Path, job: Job) -> Path:
    """Default folder of a job: its unfinished run if there is one, or else the first name not taken."""
    number = 1
    while True:
        folder = root / (job.name if number == 1 else f"{job.name}-{number}")
        if not folder.exists() or ((folder / LOCK).exists() and unused(folder)):
            return folder
        same = (folder / RUN).exists() and not _apart(folder, job)
        if same and not finished(folder, job):
            return folder
        number += 1


def unused(folder: Path) -> bool:
    """Whether a folder holds nothing but what a start leaves that came to nothing."""
    return folder.is_dir() and all(path.name in (DRAFT, LOCK) for path in folder.iterdir())


def _apart(folder: Path, job: Job) -> str:
    """How the run in a folder differs from a job; empty where it is the same."""
    now = job.identity()
    return difference(completed(read_object(folder / RUN, "is the folder a run of ours?"), now), now)
