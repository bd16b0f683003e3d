"""What a suite of tasks fine-tunes: which models, how, on which tasks, with which seeds; light, so it refuses early."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distil.errors import ConfigError
from distil.fields import nearest
from distil.finetuning.options import OPTIMIZER, FineTuning, numbers_of
from distil.folder import standing
from distil.options import Placing
from distil.rundir import MODEL
from distil.tasks import catalogue
from distil.tasks.tables import TaskLoss, TaskModel
from distil.tasks.task import Task

TEACHER, STUDENT, SECOND, DIRECT = "teacher", "student", "second", "direct"
LABELS = (TEACHER, STUDENT, SECOND, DIRECT)  # in the order in which they are trained: the last two need the first
WAYS = {"plain": STUDENT, "second": SECOND, "direct": DIRECT}
TAUGHT = (SECOND, DIRECT)
FOLDER = "runs/suite"
_OF_LOSS = {f.name for f in dataclasses.fields(TaskLoss)}
_OF_CUT = {f.name for f in dataclasses.fields(TaskModel)} - {"model", "teacher"}
_SHAPES = ("student_depth", "student_layers")


@dataclass(frozen=True)
class Suite:
    """All that is asked of a suite.

    ``given`` are the numbers of every run, by name, as a command line gives them; ``loss`` those of the ways that have
    a teacher, ``cut`` those of a student that is cut from one. ``only`` is (K, N) for the Kth of N shares, from 0.
    """

    placing: Placing
    model: str
    teacher: str
    tasks: tuple[Task, ...]
    labels: tuple[str, ...]
    seeds: tuple[int, ...]
    only: tuple[int, int] | None = None
    cross: bool = True
    given: Mapping[str, Any] = field(default_factory=dict)
    loss: Mapping[str, Any] = field(default_factory=dict)
    cut: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Where it is."""
        return Path(self.placing.output_dir or FOLDER)

    def member_folder(self, task: Task, label: str, seed: int) -> Path:
        """Where one run of it is."""
        return self.folder / task.name / f"{label}-seed{seed}"

    def start(self, label: str) -> str:
        """The model that runs of a label fine-tune; empty where they cut one, or no teacher is given."""
        return {TEACHER: self.teacher, DIRECT: ""}.get(label, self.model)

    def numbers(self, task: Task, label: str, seed: int) -> FineTuning:
        """The numbers of one run: those that launch/finetune.py would have. Raises ConfigError."""
        models = dict(self.cut) if label == DIRECT else {"model": self.start(label)}
        if label in TAUGHT:
            models |= {"teacher": str(self.member_folder(task, TEACHER, seed) / MODEL), **self.loss}
        return numbers_of({**self.given, **models, "task": task.name, "seed": seed})

    def pairs(self) -> list[tuple[Task, int]]:
        """Every task with every seed, as shares count them: the seeds of a large task lie in different shares."""
        return [(task, seed) for task in self.tasks for seed in self.seeds]

    def share(self) -> set[tuple[str, int]]:
        """Names of tasks, with seeds, that this process is to run: all, or the Kth of N shares."""
        number, count = self.only or (0, 1)
        return {(task.name, seed) for task, seed in self.pairs()[number::count]}

    def shaped(self) -> bool:
        """Whether it is said how deep a student is that is cut from a teacher."""
        return any(self.cut.get(name) for name in _SHAPES)


def suite_of(given: Mapping[str, Any]) -> Suite:
    """What was given on a command line, by name. Raises ConfigError for whatever can be refused by looking at it."""
    left = dict(given)
    placing = Placing(**{f.name: left.pop(f.name) for f in dataclasses.fields(Placing) if f.name in left})
    model, teacher = left.pop("model", None) or "", left.pop("teacher", None) or ""
    labels = _labels(left.pop("ways", "plain"), teacher)
    loss = {name: left.pop(name) for name in _OF_LOSS & left.keys()}
    cut = {name: left.pop(name) for name in _OF_CUT & left.keys()}
    if not model:
        raise ConfigError("no model: give --model DIR_OR_NAME, the student whose worth is to be measured")
    if loss and not set(labels) & set(TAUGHT):
        raise ConfigError(f"{min(loss)} is for runs with a teacher, and there are none; give --ways plain,second")
    if cut and DIRECT not in labels:
        raise ConfigError(f"{min(cut)} is for a student cut from the teacher; give --ways direct, too")
    suite = Suite(
        placing=placing, model=model, teacher=teacher, tasks=_tasks(left.pop("tasks", "glue"), left.get("data", "")),
        labels=labels,
        seeds=_seeds(left.pop("seeds", 5), left.pop("seed", OPTIMIZER["seed"])), only=_only(left.pop("only", None)),
        cross=left.pop("cross", True), given=left, loss=loss, cut=cut,
    )  # fmt: skip
    _refuse_early(suite)
    return suite


def _refuse_early(suite: Suite) -> None:
    for label in suite.labels:
        suite.numbers(suite.tasks[0], label, suite.seeds[0])
    where = standing(suite.folder)
    if not where.is_dir():
        raise ConfigError(f"output directory {suite.folder} cannot be: {where} is a file; give another --output_dir")


def _labels(ways: str, teacher: str) -> tuple[str, ...]:
    """Labels of runs in the order in which they are trained."""
    wanted = set()
    for way in _names(ways, "ways"):
        if way not in WAYS:
            raise ConfigError(f"--ways {ways}: no way {way}{nearest(way, WAYS)}; there are: {', '.join(WAYS)}")
        wanted.add(WAYS[way])
    if not teacher and wanted & set(TAUGHT):
        raise ConfigError(
            f"--ways {ways} needs a teacher; give --teacher DIR_OR_NAME, which is fine-tuned for each task"
        )
    return tuple(label for label in LABELS if label in wanted or (label == TEACHER and teacher))


def _tasks(names: str, data: str) -> tuple[Task, ...]:
    found: dict[str, Task] = {}
    for name in _names(names, "tasks"):
        for one in catalogue.GLUE if name.lower() == "glue" else (name,):
            task = catalogue.on_data(catalogue.find(one), data)
            if task.name in found:
                raise ConfigError(f"--tasks {names}: {task.name} is there twice; name it once")
            found[task.name] = task
    return tuple(found.values())


def _names(text: str, option: str) -> Sequence[str]:
    names = [name.strip() for name in text.split(",")]
    if "" in names:
        raise ConfigError(f"--{option} {text!r}: a name is empty; name one there, or remove the comma")
    return names


def _seeds(count: int, first: int) -> tuple[int, ...]:
    if count < 1:
        raise ConfigError(f"seeds is {count}; it must be above 0")
    return tuple(range(first, first + count))


def _only(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and int(number) < int(count)):
        raise ConfigError(
            f"only is {text}; it must be K/N, the Kth of N shares counted from 0: 0/9 to 8/9, as of sbatch --array=0-8"
        )
    return int(number), int(count)
