"""What is written of a suite: the terminal, a document, all numbers, and what a run's report shows of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from distil import made
from distil.errors import DataError
from distil.exhibit import FOLDER, Exhibit
from distil.finetuning import cross, suite_table
from distil.finetuning.results import TaskResults
from distil.finetuning.suite_folder import NUMBERS, TABLE, Member, keep
from distil.finetuning.suite_options import TEACHER, Suite
from distil.finetuning.suite_warnings import warnings
from distil.markdown import aligned

Cells = Mapping[str, Mapping[str, cross.Row]]
COMMANDS, MODELS = "commands", "models"
TASKS, MATRIX = "suite", "suite_cross"  # names of what a run's report shows


class Report:
    """The tables of ``runs``: printed, and written with all numbers into the suite's folder and, of a run, ``out``."""

    def __init__(self, suite: Suite, runs: Mapping[Member, TaskResults], command: str, out: Path | None) -> None:
        self._suite, self._runs, self._command, self._out = suite, runs, command, out

    def write(self) -> None:
        """All but the matrix: what an earlier command has left of one is of other runs. Raises DataError.

        What is printed is so before anything is written.
        """
        table, told = self._table(), self._warnings()
        print("\n" + "\n\n".join([_shown(table), *told]), flush=True)
        self._keep({})
        print(f"\nwritten to {self._suite.folder / TABLE}, all numbers to {self._suite.folder / NUMBERS}", flush=True)
        if self._out is not None:
            self._leave(TASKS, replace(table, note=" ".join([table.note, *(f"{line}." for line in told)])))
            self._leave(MATRIX, None)

    def add(self, cells: Cells) -> None:
        """The matrix, to what is written already. Raises DataError."""
        matrix = self._matrix(cells)
        print(f"\n{_shown(matrix)}", flush=True)
        self._keep(cells)
        print(f"\nadded to {self._suite.folder / TABLE}", flush=True)
        if self._out is not None:
            self._leave(MATRIX, matrix)

    def _names(self) -> list[str]:
        return list(dict.fromkeys(one.task.name for one in self._runs))

    def _found(self) -> suite_table.Found:
        found: dict[suite_table.Key, dict[int, TaskResults]] = {}
        for one, results in self._runs.items():
            found.setdefault((one.task.name, one.label), {})[one.seed] = results
        return found

    def _table(self) -> Exhibit:
        tasks = list({one.task.name: one.task for one in self._runs}.values())
        lines = suite_table.lines_of(self._names(), self._found())
        seeds = sorted({one.seed for one in self._runs})
        return Exhibit(
            title="Tasks", columns=suite_table.columns(self._names()),
            rows=_as_tuples(suite_table.rows(lines, tasks)), note=suite_table.note(lines, seeds, tasks, self._found()),
            command=self._command,
        )  # fmt: skip

    def _matrix(self, cells: Cells) -> Exhibit:
        across = [name for name in self._names() if any(name in of_label for of_label in cells.values())]
        return Exhibit(
            title="Fine-tuned models on other tasks", columns=("", *across), rows=_as_tuples(cross.rows(across, cells)),
            note=cross.NOTE, command=self._command,
        )  # fmt: skip

    def _made(self) -> dict[Member, dict[str, Any]]:
        return {one: one.notes() for one in self._runs}

    def _warnings(self) -> list[str]:
        return warnings(self._runs, self._made())

    def _keep(self, cells: Cells) -> None:
        """Write the suite's own files."""
        how, folder, before = self._made(), self._suite.folder, _before(self._suite.folder)
        models = {"student": self._suite.model, "teacher": self._suite.teacher}
        if not models["teacher"] and any(one.label == TEACHER for one in self._runs):
            models["teacher"] = before[MODELS].get("teacher", "")  # that of an earlier command
        commands = list(dict.fromkeys([*before[COMMANDS], self._command]))
        numbers = {
            COMMANDS: commands, MODELS: models,
            "table": suite_table.values(suite_table.lines_of(self._names(), self._found())),
            "cross": cells, "warnings": self._warnings(),
            "runs": [
                {"task": one.task.name, "label": one.label, "seed": one.seed, "score": r.score, **asdict(r),
                 "made": how[one]}
                for one, r in self._runs.items()
            ],
        }  # fmt: skip
        tables = [self._table(), *([self._matrix(cells)] if cells else [])]
        parts = [f"# {models['student']} on tasks" + (f", beside {models['teacher']}" if models["teacher"] else "")]
        parts += [f"## {table.title}\n\n{_shown(table)}" for table in tables]
        by_name = {(f"{one.task.name} {one.label}", one.seed): of for one, of in how.items()}
        parts += [*self._warnings(), "\n".join(f"    {command}" for command in commands)]
        parts += ["\n".join(made.in_words(by_name))]
        keep(folder, numbers, "\n\n".join(parts) + "\n")

    def _leave(self, name: str, exhibit: Exhibit | None) -> None:
        """Put what a run's report shows into its folder, or take away what is there of this name."""
        try:
            self._out.mkdir(parents=True, exist_ok=True)
            if exhibit is None:
                (self._out / FOLDER / f"{name}.json").unlink(missing_ok=True)
        except OSError as error:
            raise DataError(f"{self._out} cannot be written: {error.strerror}; give another --out") from error
        if exhibit is not None:
            exhibit.write(self._out, name)


def _shown(table: Exhibit) -> str:
    return f"{aligned(table.columns, table.rows)}\n\n{table.note}"


def _as_tuples(rows: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row) for row in rows)


def _before(folder: Path) -> dict[str, Any]:
    """Commands and models of those that have written the tables before."""
    path = folder / NUMBERS
    if not path.exists():
        return {COMMANDS: [], MODELS: {}}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return {COMMANDS: list(map(str, values[COMMANDS])), MODELS: dict(values[MODELS])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove it, and the same command makes it anew") from error
