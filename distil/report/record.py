"""What a run left in its folder, read whole: identity, results, curves, texts, evaluations.

Only the identity must be there; a run that has just begun, was interrupted or could not write curves has a page, too.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil import exhibit
from distil.errors import DataError
from distil.folder import read_object
from distil.report.events import Curve, Events
from distil.rundir import RESULTS, RUN

if TYPE_CHECKING:  # it loads torch
    from distil.finetuning.results import TaskResults

TENSORBOARD = "tensorboard"
FINE_TUNING = "fine-tuning"  # of the identity of such a run
AFTER = "student after"  # the row of the results that is the exported student's


@dataclass(frozen=True)
class Record:
    """A run as its folder has it; ``results`` is None before the end, ``task_results`` but for a fine-tuning's.

    ``sessions`` are the start and the last sign, in UNIX seconds, of each process that trained; ``texts`` are those of
    the last one. ``damaged`` are names of event files that could be read in part only, ``outdated`` those of
    exhibits that were left before the results.
    """

    folder: Path
    identity: dict[str, Any]
    results: dict[str, Any] | None
    curves: dict[str, Curve]
    texts: dict[str, str]
    sessions: tuple[tuple[float, float], ...]
    exhibits: dict[str, exhibit.Exhibit]
    task_results: TaskResults | None = None
    damaged: tuple[str, ...] = ()
    outdated: frozenset[str] = frozenset()

    @property
    def step(self) -> int:
        """The last step of which anything is known."""
        steps = [int(curve.steps[-1]) for curve in self.curves.values()]
        return max([*steps, self.result("step") or 0])

    @cached_property
    def plan(self) -> dict[str, str]:
        """The plan that was printed before the start, row by row; empty where it is not of that form."""
        rows: dict[str, str] = {}
        for line in self.texts.get("plan", "").splitlines():
            name, text = line[:18].strip(), line[18:].strip()
            if name and text:
                rows[name] = text
            elif rows and text:
                rows[next(reversed(rows))] += f"\n{text}"
        return rows

    @property
    def planned(self) -> int | None:
        """The step at which the run is to end, where the plan says it."""
        found = re.search(r"stops at ([\d,]+)", self.plan.get("schedule", ""))
        found = found or re.match(r"([\d,]+) steps", self.plan.get("schedule", ""))
        return int(found[1].replace(",", "")) if found else None

    @property
    def seconds(self) -> float:
        """What all processes of the run took, from their start to their last report."""
        return sum(end - start for start, end in self.sessions)

    def result(self, name: str) -> Any:
        """A number of the results' top; None where there is none."""
        value = (self.results or {}).get(name)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def rows(self) -> dict[str, dict[str, Any]]:
        """{name of a model: its figures} of the results' table; empty without any."""
        return {str(row.get("name", "")): row for row in (self.results or {}).get("rows", [])}

    def last(self, tag: str) -> float | None:
        """Where a curve ends; None where there is none."""
        return float(self.curves[tag].values[-1]) if tag in self.curves else None

    @property
    def task(self) -> str | None:
        """What a fine-tuning fits its model to; None of any other run."""
        numbers = self.identity.get(FINE_TUNING)
        return str(numbers.get("task", "")) if isinstance(numbers, dict) else None

    @property
    def tables(self) -> dict[str, dict[str, Any]]:
        """The numbers that decide the weights, by table, of a recipe or of a fine-tuning."""
        found = self.identity.get("mathematics" if self.task is None else FINE_TUNING)
        return {n: v for n, v in found.items() if isinstance(v, dict) and v} if isinstance(found, dict) else {}

    def table(self, name: str) -> dict[str, Any]:
        """One of these tables; empty where there is none."""
        return self.tables.get(name, {})

    def settings(self, name: str) -> dict[str, Any]:
        """One of the texts that are JSON objects (ds_config, versions); empty where it is none."""
        try:
            value = json.loads(self.texts.get(name, "{}"))
        except ValueError:
            return {}
        return value if isinstance(value, dict) else {}


def read(folder: Path) -> Record:
    """All that a run's folder holds. Raises DataError where it is no run's folder, or something in it is damaged."""
    if not folder.is_dir():
        raise DataError(f"no folder {folder}; give that of a run, such as make run leaves in runs/quickstart")
    if not (folder / RUN).is_file():
        inside = [
            sorted(str(path.parent.relative_to(folder)) for path in folder.glob(f"{levels}{RUN}"))
            for levels in ("*/", "*/*/")
        ]
        hint = ""
        if any(inside):
            deep = "" if inside[0] else " two levels down"
            hint = f"; it holds runs{deep}, give one of them: {', '.join((inside[0] or inside[1])[:4])}"
        raise DataError(f"{folder} is no run of ours: it has no {RUN}{hint}")
    identity = read_object(folder / RUN, "is the folder a run of ours?")
    results = read_object(folder / RESULTS, "remove it to measure again") if (folder / RESULTS).exists() else None
    rows = [] if results is None else results.get("rows", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{folder / RESULTS} cannot be read (rows is no list of objects); remove it to measure again")
    events = Events.read(folder / TENSORBOARD)
    record = Record(
        folder, identity, results, events.curves, events.texts, events.sessions, exhibit.read_all(folder),
        damaged=events.damaged, outdated=exhibit.older_than(folder, folder / RESULTS),
    )  # fmt: skip
    if record.task is None or results is None:
        return record
    from distil.finetuning.results import TaskResults

    return replace(record, task_results=TaskResults.read(folder))
