"""The folder of a suite: TASK/LABEL-seedN for each run, and two files of ours, each of which says so in itself.

All that is known of a run is in its own folder, so runs of one suite may be made by several processes at once, and the
tables are made anew from what is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil.data.tokenizer import fingerprint, load_tokenizer
from distil.errors import ConfigError, DataError
from distil.finetuning.options import FineTuning
from distil.finetuning.results import TaskResults
from distil.finetuning.suite_options import LABELS, TEACHER, Suite
from distil.folder import write_whole
from distil.identity import difference
from distil.models.loading import load_config, weights_fingerprint
from distil.rundir import LOCK, MODEL, RESULTS, RUN, unused
from distil.tasks import catalogue
from distil.tasks.task import Task
from distil.training import STOP

TABLE, NUMBERS = "suite.md", "suite.json"
MADE = "made.json"  # in a run's folder: when, where and with what it was made, and how long its schedule is
KIND, OURS = "kind", "suite of tasks by distil"  # in NUMBERS, whose it is
MARK = "<!-- written by launch/evaluate.py suite, which writes it anew -->"  # the same in TABLE
KEPT = re.compile(rf"\.?({re.escape(TABLE)}|{re.escape(NUMBERS)})|{STOP}(-\d+)?|{re.escape(LOCK)}")
_MEMBER = re.compile(rf"({'|'.join(LABELS)})-seed(\d+)")
_REMEDY = "move it away, or give another --output_dir"


@dataclass(frozen=True, eq=False)
class Member:
    """One run of a suite; equal to itself alone."""

    task: Task
    label: str
    seed: int
    folder: Path
    numbers: FineTuning

    @classmethod
    def of(cls, suite: Suite, task: Task, label: str, seed: int) -> Member:
        """The run of a task, a label and a seed."""
        return cls(task, label, seed, suite.member_folder(task, label, seed), suite.numbers(task, label, seed))

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
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read ({error}); remove it, and it is made anew") from error
        if not isinstance(values, dict):
            raise DataError(f"{path} cannot be read (it is no JSON object); remove it, and it is made anew")
        return values

    def note(self, values: dict[str, Any], name: str = MADE) -> None:
        """Keep a file of ours beside its results. Raises DataError."""
        _write(self.folder / name, json.dumps(values, indent=2) + "\n")


def members_of(suite: Suite) -> list[Member]:
    """All runs that are asked for, by seeds first, so that after a round every task has a figure."""
    return [
        Member.of(suite, task, label, seed) for seed in suite.seeds for task in suite.tasks for label in suite.labels
    ]


def members_there(suite: Suite) -> list[Member]:
    """Runs in the folder that have results and are named as those of a suite, by task, label and seed."""
    found = []
    for task in catalogue.TASKS.values():
        for path in sorted((suite.folder / task.name).glob("*-seed*")):
            match = _MEMBER.fullmatch(path.name)
            known = match and str(int(match[2])) == match[2] and (suite.teacher or match[1] != TEACHER)
            if known and (path / RESULTS).exists():
                found.append(Member.of(suite, task, match[1], int(match[2])))
    names = [task.name for task in suite.tasks]
    place = {name: names.index(name) if name in names else len(names) for name in catalogue.TASKS}
    return sorted(found, key=lambda one: (place[one.task.name], LABELS.index(one.label), one.seed))


class Identities:
    """What makes runs the same run, as far as it is known without reading a task's text."""

    def __init__(self) -> None:
        self._models: dict[str, tuple[str, str]] = {}

    def apart(self, one: Member) -> str:
        """How the run in a member's folder differs from what the member is; empty where it does not, or is not there.

        Raises DataError where it cannot be read.
        """
        path = one.folder / RUN
        if not path.exists():
            return ""
        try:
            then = json.loads(path.read_text(encoding="utf-8"))
            now = self._of(one, then["weights"])
            there = {name: then[name] for name in now}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read ({error}); is the folder a run of ours?") from error
        return difference(there, now)

    def _of(self, one: Member, then: dict[str, str]) -> dict[str, Any]:
        start, taught = one.numbers.start, one.numbers.loss.needs_teacher
        weights = {"model": self._model(start.model)[0]} if start.model else {}
        if taught and Path(start.teacher).exists():
            weights["teacher"] = self._model(start.teacher)[0]
        elif taught and "teacher" in then:  # to be made anew, which may come to the same to the bit
            weights["teacher"] = then["teacher"]
        tokenizer = {"tokenizer": self._model(start.model)[1]} if start.model else {}
        return {"fine-tuning": {"task": one.task.name, **one.numbers.numbers()}, **tokenizer, "weights": weights}

    def _model(self, name: str) -> tuple[str, str]:
        """Fingerprints of a model's weights and of its tokenizer; of one that is given they are taken once."""
        if name not in self._models:
            prints = weights_fingerprint(name, load_config(name)), fingerprint(load_tokenizer(name))
            if Path(name).name == MODEL:
                return prints
            self._models[name] = prints
        return self._models[name]


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
            ours = _MEMBER.fullmatch(run.name) and ((run / RUN).exists() or unused(run))
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


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Seeds as a person lists them."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
