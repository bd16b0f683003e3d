"""The folder of a suite: TASK/LABEL-seedN for each run, and two files of ours, each of which says so in itself.

All that is known of a run is in its own folder, so runs of one suite may be made by several processes at once, and the
tables are made anew from what is there.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil.errors import ConfigError, DataError
from distil.finetuning.options import FineTuning
from distil.finetuning.results import TaskResults
from distil.finetuning.suite_options import LABELS, Suite
from distil.folder import read_object, write_whole
from distil.rundir import LOCK, MODEL, RUN, unused
from distil.tasks import catalogue
from distil.tasks.task import Task
from distil.training import STOP

TABLE, NUMBERS = "suite.md", "suite.json"
MADE = "made.json"  # in a run's folder: when, where and with what it was made, and beside that:
TOTAL, DATA = "total_steps", "data"  # how long its schedule is, and where its text was, as --data has it
KIND, OURS = "kind", "suite of tasks by distil"  # in NUMBERS, whose it is
MARK = "<!-- written by launch/evaluate.py suite, which writes it anew -->"  # the same in TABLE
KEPT = re.compile(rf"\.?({re.escape(TABLE)}|{re.escape(NUMBERS)})|{STOP}(-\d+)?|{re.escape(LOCK)}")
_MEMBER = re.compile(rf"({'|'.join(LABELS)})-seed(0|[1-9]\d*)")
_REMEDY = "move it away, or give another --output_dir"


@dataclass(frozen=True, eq=False)
class Member:
    """One run of a suite; equal to itself alone. Of a label that is not asked for the numbers are not known."""

    task: Task
    label: str
    seed: int
    folder: Path
    numbers: FineTuning | None

    @classmethod
    def of(cls, suite: Suite, task: Task, label: str, seed: int) -> Member:
        """The run of a task, a label and a seed."""
        numbers = suite.numbers(task, label, seed) if label in suite.labels else None
        return cls(task, label, seed, suite.member_folder(task, label, seed), numbers)

    @property
    def export(self) -> Path:
        """Folder of its fitted model."""
        return self.folder / MODEL

    @property
    def title(self) -> str:
        """It in words."""
        return f"{self.task.name}, {self.label}, seed {self.seed}"

    def results(self) -> TaskResults:
        """What it came to. Raises DataError."""
        return TaskResults.read(self.folder)

    def notes(self, name: str = MADE) -> dict[str, Any]:
        """What a file of ours beside its results says; empty where there is none. Raises DataError."""
        path = self.folder / name
        if not path.exists():
            return {}
        return read_object(path, "remove it, and it is made anew")

    def note(self, values: dict[str, Any], name: str = MADE) -> None:
        """Keep a file of ours beside its results. Raises DataError."""
        _write(self.folder / name, json.dumps(values, indent=2) + "\n")


def members_of(suite: Suite) -> list[Member]:
    """All runs that are asked for, by seeds first, so that after a round every task has a figure."""
    return [
        Member.of(suite, task, label, seed) for seed in suite.seeds for task in suite.tasks for label in suite.labels
    ]


def members_there(suite: Suite) -> list[Member]:
    """Runs in the folder, finished or not, that are named as those of a suite, by task, label and seed."""
    found = []
    for task in catalogue.TASKS.values():
        for path in sorted((suite.folder / task.name).glob("*-seed*")):
            match = _MEMBER.fullmatch(path.name)
            if match and (path / RUN).exists():
                found.append(Member.of(suite, task, match[1], int(match[2])))
    names = [task.name for task in suite.tasks]
    place = {name: names.index(name) if name in names else len(names) for name in catalogue.TASKS}
    return sorted(found, key=lambda one: (place[one.task.name], LABELS.index(one.label), one.seed))


def refuse_strangers(folder: Path) -> None:
    """Raise ConfigError where the folder holds anything but runs and what a suite keeps; it may be empty or new."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"output directory {folder} is a file; give another --output_dir")
    if (folder / RUN).exists():
        raise ConfigError(f"output directory {folder} is that of a single run; give another --output_dir")
    try:
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                _refuse_strange_task(folder, path)
            elif not KEPT.fullmatch(path.name):
                raise ConfigError(f"output directory {folder} holds {path.name}, which is no suite's; {_REMEDY}")
        if (folder / TABLE).exists() and MARK not in (folder / TABLE).read_text(encoding="utf-8", errors="replace"):
            raise ConfigError(f"{folder / TABLE} is not of our making; {_REMEDY}")
        if (folder / NUMBERS).exists() and not _is_ours(folder / NUMBERS):
            raise ConfigError(f"{folder / NUMBERS} is not of our making; {_REMEDY}")
    except OSError as error:
        raise DataError(f"output directory {folder} cannot be read: {error.strerror}; give another") from error


def _refuse_strange_task(folder: Path, path: Path) -> None:
    if path.name not in catalogue.TASKS:
        raise ConfigError(f"output directory {folder} holds {path.name}, which is no suite's; {_REMEDY}")
    for run in sorted(path.iterdir()):
        try:
            # Another process may claim it between two looks, so that the first is to be taken once more.
            ours = _MEMBER.fullmatch(run.name) and ((run / RUN).exists() or unused(run) or (run / RUN).exists())
        except FileNotFoundError:  # another process of this suite has begun it, or given it up, a moment ago
            continue
        if not ours and run.exists():
            raise ConfigError(f"output directory {run} exists and holds no run of ours; {_REMEDY}")


def _is_ours(path: Path) -> bool:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(values, dict) and values.get(KIND) == OURS


def keep(folder: Path, numbers: dict[str, Any], document: str) -> None:
    """Write all numbers and the tables, of a folder that is held. Raises DataError."""
    _write(folder / NUMBERS, json.dumps({KIND: OURS} | numbers, indent=2) + "\n")
    _write(folder / TABLE, f"{document}\n{MARK}\n")


def _write(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
