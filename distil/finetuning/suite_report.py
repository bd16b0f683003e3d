"""What is written of a suite: the terminal, a document, all numbers, and what a run's report shows of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distil.errors import DataError
from distil.exhibit import Exhibit
from distil.finetuning import cross, suite_table
from distil.finetuning.results import TaskResults
from distil.finetuning.suite_folder import NUMBERS, TABLE, Member, keep, seeds_in_words
from distil.finetuning.suite_options import Suite
from distil.finetuning.suite_warnings import warnings
from distil.markdown import aligned
from distil.tasks.task import Task

Runs = Mapping[Member, TaskResults]
COMMANDS = "commands"


def write(
    suite: Suite, runs: Runs, cells: Mapping[str, Mapping[str, float | None]], command: str, out: Path | None
) -> None:  # fmt: skip
    """Print the tables, and write them with all numbers into the suite's folder and, of a run, into ``out``."""
    tasks = list({one.task.name: one.task for one in runs}.values())
    tables = _tables(tasks, runs, cells, command)
    made = {one: one.notes() for one in runs}
    told = warnings(runs, made)
    commands = list(dict.fromkeys([*_commands_before(suite.folder), command]))
    shown = [f"{aligned(table.columns, table.rows)}\n\n{table.note}" for table in tables]
    numbers = {
        COMMANDS: commands, "models": {"student": suite.model, "teacher": suite.teacher},
        "table": suite_table.values(_lines(tasks, runs)), "cross": {name: dict(row) for name, row in cells.items()},
        "warnings": told,
        "runs": [
            {"task": one.task.name, "label": one.label, "seed": one.seed, "score": r.score, **asdict(r),
             "made": made[one]}
            for one, r in runs.items()
        ],
    }  # fmt: skip
    keep(suite.folder, numbers, _document(suite, tables, shown, told, commands, made))
    for table in tables if out is not None else ():
        out.mkdir(parents=True, exist_ok=True)
        table.write(out, "suite" if table is tables[0] else "suite_cross")
    below = "".join(f"\n\n{line}" for line in told)
    print("\n" + "\n\n".join(shown) + below, flush=True)
    print(f"\nwritten to {suite.folder / TABLE}, all numbers to {suite.folder / NUMBERS}", flush=True)


def _tables(
    tasks: Sequence[Task], runs: Runs, cells: Mapping[str, Mapping[str, float | None]], command: str
) -> list[Exhibit]:  # fmt: skip
    names, lines = [task.name for task in tasks], _lines(tasks, runs)
    seeds = sorted({one.seed for one in runs})
    tables = [Exhibit(
        title="Tasks", columns=suite_table.columns(names), rows=_as_tuples(suite_table.rows(lines, tasks)),
        note=suite_table.note(lines, seeds), command=command,
    )]  # fmt: skip
    if cells:
        across = [name for name in names if name in cells]
        tables.append(Exhibit(
            title="Fine-tuned models on other tasks", columns=("", *across), rows=_as_tuples(cross.rows(across, cells)),
            note=cross.NOTE, command=command,
        ))  # fmt: skip
    return tables


def _lines(tasks: Sequence[Task], runs: Runs) -> list[suite_table.Line]:
    found: dict[suite_table.Key, dict[int, TaskResults]] = {}
    for one, results in runs.items():
        found.setdefault((one.task.name, one.label), {})[one.seed] = results
    return suite_table.lines_of([task.name for task in tasks], found)


def _as_tuples(rows: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(row) for row in rows)


def _commands_before(folder: Path) -> list[str]:
    path = folder / NUMBERS
    if not path.exists():
        return []
    try:
        return [str(command) for command in json.loads(path.read_text(encoding="utf-8"))[COMMANDS]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}); remove it, and the same command makes it anew") from error


def _document(
    suite: Suite, tables: Sequence[Exhibit], shown: Sequence[str], told: Sequence[str], commands: Sequence[str],
    made: Mapping[Member, Mapping[str, Any]],
) -> str:  # fmt: skip
    parts = [f"# {suite.model} on tasks" + (f", beside {suite.teacher}" if suite.teacher else "")]
    parts += [f"## {table.title}\n\n{text}" for table, text in zip(tables, shown, strict=True)]
    parts += [*told, "\n".join(f"    {command}" for command in commands), "\n".join(_made(made))]
    return "\n\n".join(parts) + "\n"


def _made(made: Mapping[Member, Mapping[str, Any]]) -> list[str]:
    """A line for all runs that were made alike, but for the day: how, and which they are."""
    alike: dict[str, list[Member]] = {}
    for one, how in made.items():
        alike.setdefault(_how(how), []).append(one)
    found = []
    for text, those in alike.items():
        dates = sorted({str(made[one]["date"]) for one in those if "date" in made[one]})
        days = f", {' to '.join(dict.fromkeys((dates[0], dates[-1])))}" if dates else ""
        seeds: dict[str, list[int]] = {}
        for one in those:
            seeds.setdefault(f"{one.task.name} {one.label}", []).append(one.seed)
        which = "; ".join(f"{name}, {seeds_in_words(numbers)}" for name, numbers in seeds.items())
        found.append(f"- {len(those)} of {len(made)} runs{days}: {text}: {which}")
    return found


def _how(made: Mapping[str, Any]) -> str:
    if "precision" not in made:
        return "how and when they were made is not recorded"
    keys = ("machine", "ranks", "precision", "ds_config", "torch", "deepspeed", "git")
    of = {key: made.get(key, "?") for key in keys}
    return (
        f"{of['machine']}; {of['ranks']} rank(s), {of['precision']}, {of['ds_config']}; torch {of['torch']}, "
        f"DeepSpeed {of['deepspeed']}, git {of['git']}"
    )
