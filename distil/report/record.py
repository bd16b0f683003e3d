"""What a run left in its folder, read whole: identity, results, curves, texts, evaluations.

Only the identity must be there; a run that has just begun, was interrupted or could not write curves has a page, too.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distil import exhibit
from distil.errors import DataError
from distil.rundir import RESULTS, RUN

if TYPE_CHECKING:  # it loads torch
    from distil.finetuning.results import TaskResults

TENSORBOARD = "tensorboard"
FINE_TUNING = "fine-tuning"  # of the identity of such a run
AFTER = "student after"  # the row of the results that is the exported student's
TEXT = "/text_summary"  # what TensorBoard adds to the tag of a text


@dataclass(frozen=True)
class Curve:
    """Values of one tag, by step; ``steps`` never fall."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Record:
    """A run as its folder has it; ``results`` is None before the end, ``task_results`` but for a fine-tuning's.

    ``sessions`` are the start and the last sign, in UNIX seconds, of each process that trained; ``texts`` are those of
    the last one.
    """

    folder: Path
    identity: dict[str, Any]
    results: dict[str, Any] | None
    curves: dict[str, Curve]
    texts: dict[str, str]
    sessions: tuple[tuple[float, float], ...]
    exhibits: dict[str, exhibit.Exhibit]
    task_results: TaskResults | None = None

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
        inside = sorted(path.parent.name for path in folder.glob(f"*/{RUN}"))
        hint = f"; it holds runs, give one of them: {', '.join(inside[:4])}" if inside else ""
        raise DataError(f"{folder} is no run of ours: it has no {RUN}{hint}")
    identity = _json(folder / RUN, "is the folder a run of ours?")
    results = _json(folder / RESULTS, "remove it to measure again") if (folder / RESULTS).exists() else None
    rows = [] if results is None else results.get("rows", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{folder / RESULTS} cannot be read (rows is no list of objects); remove it to measure again")
    curves, texts, sessions = _events(folder / TENSORBOARD)
    record = Record(folder, identity, results, curves, texts, sessions, exhibit.read_all(folder))
    if record.task is None or results is None:
        return record
    from distil.finetuning.results import TaskResults

    return replace(record, task_results=TaskResults.read(folder))


def _json(path: Path, remedy: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path} cannot be read (it holds no JSON object); {remedy}")
    return value


def _events(folder: Path) -> tuple[dict[str, Curve], dict[str, str], tuple[tuple[float, float], ...]]:
    """Curves and texts of all event files, without what a resumed run has done anew, and the run's sessions."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tb_logging

    tb_logging.get_logger().setLevel(logging.CRITICAL)  # the end of a killed run's file is no news
    if not folder.is_dir():
        return {}, {}, ()
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    try:
        events.Reload()
        found = events.Tags()
        scalars = {tag: events.Scalars(tag) for tag in found["scalars"]}
        texts = {tag.removesuffix(TEXT): events.Tensors(tag) for tag in found["tensors"] if tag.endswith(TEXT)}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} cannot be read ({error}); remove it to have a page without curves") from error
    curves = {}
    for tag, values in scalars.items():
        if not values:  # all of it belongs to steps that were done anew
            continue
        steps, numbers = np.array([v.step for v in values]), np.array([v.value for v in values], dtype=float)
        order = np.argsort(steps, kind="stable")
        curves[tag] = Curve(steps[order], numbers[order])
    last = {name: _text(said[-1].tensor_proto.string_val) for name, said in texts.items() if said}
    starts = sorted(said.wall_time for said in next(iter(texts.values()), []))
    times = np.sort(np.concatenate([[v.wall_time for v in values] for values in scalars.values()] or [[]]))
    return curves, last, _sessions(starts, times)


def _sessions(starts: list[float], times: np.ndarray) -> tuple[tuple[float, float], ...]:
    """From each start to the last sign before the next one."""
    starts = starts or times[:1].tolist()
    found = []
    for start, following in zip(starts, [*starts[1:], np.inf][: len(starts)], strict=True):
        within = times[(times >= start) & (times < following)]
        found.append((start, float(within[-1]) if len(within) else start))
    return tuple(found)


def _text(parts: Any) -> str:
    """A text as the monitor was given it, before it was indented to be preformatted."""
    lines = (parts[0].decode("utf-8", "replace") if parts else "").splitlines()
    return "\n".join(line.removeprefix("    ") for line in lines)
