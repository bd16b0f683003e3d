"""GLUE's own files: a folder a task, tab-separated, a quote being a character like any other.

What ``GLUE.zip`` unpacks to: ``CoLA/train.tsv``, ``CoLA/dev.tsv``, ``MNLI/dev_matched.tsv``. Of QQP's there are two
releases; the first has a few broken rows, ``QQP-clean.zip`` does not.
"""

from __future__ import annotations

from pathlib import Path

from distil.errors import DataError
from distil.tasks.columns import Columns, lines_of, of_rows, readable
from distil.tasks.task import TRAIN, Task

_COLA = ("source", "label", "original", "sentence")  # of its files without a first line that names them
# Where a file's names differ from the hub's; the word of the file by that of the task.
_NAMES = {
    "mrpc": {"sentence1": "#1 String", "sentence2": "#2 String", "label": "Quality"},
    "stsb": {"label": "score"},
    "qqp": {"label": "is_duplicate"},
    "mnli": {"premise": "sentence1", "hypothesis": "sentence2", "label": "gold_label"},
}


def glue_file(task: Task, folder: Path, split: str) -> Path | None:
    """The file of a split in a folder of all tasks, or of this one; none where ``folder`` is not GLUE's."""
    for candidate in (folder / task.source["folder"], folder):
        if any(candidate.glob("dev*.tsv")):
            return candidate / f"{_word(split)}.tsv"
    return None


def read_glue(task: Task, path: Path) -> Columns:
    """A file's columns under the task's names. Raises DataError, with file and line, for a broken one."""
    if not path.is_file():
        raise DataError(f"{path}: no such file; GLUE's folder of {task.name} has one")
    with readable(path):
        lines = lines_of(path)
    named = task.name != "cola" or lines[:1] == ["index\tsentence"]
    header = lines[0].split("\t") if named and lines else list(_COLA)
    rows = ((i, line.split("\t")) for i, line in enumerate(lines, 1) if line and i > named)
    names = {name: _NAMES.get(task.name, {}).get(name, name) for name in (*task.columns, task.label)}
    found = of_rows(str(path), header, rows, names.values())
    if names[task.label] not in found.values:
        raise DataError(f"{path}: no column {names[task.label]}; the labels of GLUE's test splits are not public")
    return Columns(found.name, {ours: found.column(theirs) for ours, theirs in names.items()}, found.count, found.lines)


def _word(split: str) -> str:
    return split if split == TRAIN else split.replace("validation", "dev")
