"""The table of a suite, as the paper's Table 1: a row for each model, a macro-score, and each task over its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from distil.finetuning.results import TaskResults
from distil.finetuning.suite_options import DIRECT, LABELS, SECOND, STUDENT, TEACHER
from distil.tasks.catalogue import GLUE, PAPER_MACRO
from distil.tasks.task import Task

Key = tuple[str, str]  # names of a task and a label
Found = Mapping[Key, Mapping[int, TaskResults]]  # by seed
TITLES = {
    TEACHER: "teacher", STUDENT: "student", SECOND: "student, distilled twice", DIRECT: "student, distilled directly",
}  # fmt: skip
PAPER = {
    "student": "paper: DistilBERT", "student, distilled twice": "paper: DistilBERT, twice",
    "teacher": "paper: BERT-base",
}  # fmt: skip
SOURCE = "Sanh et al. 2019, arXiv 1910.01108"
NONE = "-"


@dataclass(frozen=True)
class Spread:
    """Of scores in percent over ``count`` seeds; the median of an even number is the mean of the middle two."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of one value or more."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def cell(self) -> str:
        """Median and half the range; one value has no range."""
        return f"{self.median:.1f}" + (f" \u00b1 {(self.high - self.low) / 2:.1f}" if self.count > 1 else "")


@dataclass(frozen=True)
class Line:
    """A model over all tasks: ``scores`` by task in percent, ``minutes`` of training all tasks once."""

    label: str
    scores: Mapping[str, Spread]
    macro: float | None
    minutes: float | None
    parameters: int

    @classmethod
    def of(cls, label: str, tasks: Sequence[str], found: Found) -> Self:
        """Of the runs of a label; the macro-score is the mean of the tasks' medians, where every task has one."""
        runs = {task: list(found[task, label].values()) for task in tasks if found.get((task, label))}
        scores = {task: Spread.of([one.score for one in those]) for task, those in runs.items()}
        seconds = {task: [one.seconds for one in those if one.from_step == 0] for task, those in runs.items()}
        whole = len(scores) == len(tasks)
        timed = whole and all(seconds.values())
        return cls(
            label, scores,
            statistics.fmean(one.median for one in scores.values()) if whole else None,
            sum(statistics.median(of) for of in seconds.values()) / 60 if timed else None,
            max(one.parameters for those in runs.values() for one in those),
        )  # fmt: skip

    def kept(self, teacher: Line) -> dict[str, float | None]:
        """Medians by task, and the macro-score under "", as shares of the teacher's; None where that has none above 0.

        The two macro-scores are of the same tasks, or there is none.
        """
        shares = {task: _share(one.median, teacher.scores.get(task)) for task, one in self.scores.items()}
        both = self.macro is not None and teacher.macro is not None and teacher.macro > 0
        return shares | {"": self.macro / teacher.macro if both else None}

    def cells(self, tasks: Sequence[str]) -> list[str]:
        """As a person reads it."""
        each = [self.scores[task].cell() if task in self.scores else NONE for task in tasks]
        minutes = NONE if self.minutes is None else f"{self.minutes:,.1f}"
        return [TITLES[self.label], _number(self.macro), *each, f"{self.parameters / 1e6:.1f} M", minutes]


def _share(median: float, teacher: Spread | None) -> float | None:
    return median / teacher.median if teacher is not None and teacher.median > 0 else None


def _number(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f}"


def lines_of(tasks: Sequence[str], found: Found) -> list[Line]:
    """A line for each label that has runs, the teacher first."""
    there = {label for (_, label), runs in found.items() if runs}
    return [Line.of(label, tasks, found) for label in LABELS if label in there]


def columns(tasks: Sequence[str]) -> tuple[str, ...]:
    """Heads of the columns."""
    return ("", "macro-score", *tasks, "parameters", "minutes")


def rows(lines: Sequence[Line], tasks: Sequence[Task]) -> list[list[str]]:
    """The table's rows: each student's with what it keeps of its teacher below, then the paper's."""
    names = [task.name for task in tasks]
    teacher = next((line for line in lines if line.label == TEACHER), None)
    found = []
    for line in lines:
        found.append(line.cells(names))
        if teacher is not None and line is not teacher:
            kept = line.kept(teacher)
            found.append(["kept of the teacher", *(_percent(kept.get(name)) for name in ("", *names)), "", ""])
    return found + _paper_rows(tasks)


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f} %"


def _paper_rows(tasks: Sequence[Task]) -> list[list[str]]:
    whole = {task.name for task in tasks} == set(GLUE)
    found = []
    for who, title in PAPER.items():
        figures = {task.name: statistics.fmean(task.paper[who]) for task in tasks if who in task.paper}
        if figures:
            macro = PAPER_MACRO.get(who) if whole else None
            found.append([title, _number(macro), *(_number(figures.get(task.name)) for task in tasks), "", ""])
    return found


def note(lines: Sequence[Line], seeds: Sequence[int], tasks: Sequence[Task], found: Found) -> str:
    """What one must know to read the table."""
    over = f"median \u00b1 half the range over {len(seeds)} seeds" if len(seeds) > 1 else f"of one seed, {seeds[0]}"
    parts = [
        f"A task's score is the mean of its metrics in per cent, {over}; the macro-score is the mean of the tasks'"
        f"{' medians' if len(seeds) > 1 else ' scores'}.",
        *_examples(tasks, found),
        "Minutes are of training this model alone, not of fitting its teacher, nor of pretraining, "
        "without evaluations, once over all tasks, of runs that nothing has interrupted.",
        *_of_paper(tasks),
    ]
    if any(line.label == DIRECT for line in lines):
        parts.insert(1, "Distilled directly: cut from the fitted teacher, without pretraining.")
    return " ".join(parts)


def _examples(tasks: Sequence[Task], found: Found) -> list[str]:
    """How much of each task has been read: of its first run, since a warning names those that differ."""
    told = []
    for task in tasks:
        those = [one for (name, _), runs in found.items() if name == task.name for one in runs.values()]
        for one in those[:1]:
            judged = " and ".join(f"{count:,} ({split})" for split, count in one.judged.items())
            told.append(f"{task.name} trained on {one.train_examples:,}, judged on {judged}")
    return [f"Examples: {'; '.join(told)}."] if told else []


def _of_paper(tasks: Sequence[Task]) -> list[str]:
    """Where the paper's figures are from, and what of them is not quite what ours are."""
    known = [task for task in tasks if task.paper]
    if not known:
        return []
    tables = {True: "of GLUE medians of 5 seeds (Table 1)", False: "of IMDb and SQuAD those of Table 2"}
    told = "; ".join(text for glue, text in tables.items() if any((task.name in GLUE) is glue for task in known))
    parts = [
        f"The paper's figures ({SOURCE}): {told}; its models are BERT-base and DistilBERT, whatever is measured here."
    ]
    lone = [task for task in known if all(len(figures) == 1 for figures in task.paper.values())]
    if several := [task.name for task in lone if len(task.metrics) > 1]:
        parts.append(
            f"It prints one figure for {', '.join(several)} and names no metric: ours is the mean of the two there are."
        )
    if several := [task.name for task in lone if len(task.validations) > 1]:
        parts.append(f"It prints one figure for {', '.join(several)}: ours is the mean of matched and mismatched.")
    return parts


def values(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """Everything as plain values that a JSON file can hold; shares of the teacher as fractions."""
    teacher = next((line for line in lines if line.label == TEACHER), None)
    found = []
    for line in lines:
        kept = line.kept(teacher) if teacher is not None else {}
        found.append({
            "label": line.label, "macro": line.macro, "kept": kept.pop("", None), "minutes": line.minutes,
            "parameters": line.parameters,
            "tasks": {name: asdict(one) | {"kept": kept.get(name)} for name, one in line.scores.items()},
        })  # fmt: skip
    return found
