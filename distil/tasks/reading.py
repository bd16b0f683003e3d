"""A split of a task, whole, from wherever it is: the hub, a folder, files of one's own, a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from distil.data.permutation import permute, subkey
from distil.data.samples import PREFIX
from distil.errors import ConfigError, DataError
from distil.tasks.catalogue import own_task
from distil.tasks.columns import Columns, read_columns
from distil.tasks.folders import folder_columns
from distil.tasks.hub_data import hub_columns
from distil.tasks.labels import classes_in, labels_of
from distil.tasks.review_samples import sample_columns
from distil.tasks.squad_file import answers_of, read_squad
from distil.tasks.task import SPANS, TRAIN, Examples, Task

LOCAL = "local"  # name of a task on files of one's own
SUBSET = 0  # seed of the shuffle that a subset is the head of


def read(
    task: Task,
    split: str,
    data: str | None = None,
    files: Mapping[str, str] | None = None,
    limit: int | None = None,
) -> Examples:
    """A split of the task.

    From ``files`` (a file by split) where given, else from ``data``: a folder, ``sample:NAME``, or None for the hub.
    Of more than ``limit`` examples the first so many of a fixed shuffle are kept, in the order of the file: the
    same ones on any machine. Raises DataError, in one line with file and row, for what cannot be read or has a label
    out of range, ConfigError for an unknown column or split.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"a limit of {limit} examples; it must be at least 1")
    examples = examples_of(task, _columns(task, split, data, files))
    if limit is None or limit >= len(examples):
        return examples
    chosen = permute(np.arange(limit), len(examples), subkey(SUBSET, len(examples)))
    return examples.chosen(np.sort(chosen))


def examples_of(task: Task, columns: Columns) -> Examples:
    """The examples in these columns, of which the task's are to be there."""
    if not columns.count:
        raise DataError(f"{columns.name}: holds no example")
    texts = tuple(columns.texts(name) for name in task.columns)
    if task.kind == SPANS:
        ids = columns.values.get("id") or range(columns.count)
        answers = answers_of(task, columns, texts[1])
        return Examples(tuple(map(str, ids)), texts, np.empty(0, np.int64), answers, where=columns.name)
    labels = labels_of(task, columns.column(task.label), columns.place)
    return Examples(tuple(map(str, range(columns.count))), texts, labels, where=columns.name)


def local_task(
    files: Mapping[str, str],
    columns: Sequence[str],
    label: str,
    regression: bool = False,
) -> Task:
    """A task on files of one's own; classes are the labels in the training file, in order of value or name.

    Judge it on the splits that there are by ``catalogue.on_files``.
    """
    if regression:
        return own_task(LOCAL, columns, label)
    if TRAIN not in files:
        raise ConfigError(f"task {LOCAL}: no training file, from which its labels could be read")
    found = read_columns(files[TRAIN])
    if not found.count:
        raise DataError(f"{found.name}: holds no example")
    labels = classes_in(found.column(label), found.place)
    return own_task(LOCAL, columns, label, labels)


def overlap(train: Examples, validation: Examples) -> int:
    """How many of ``validation``'s examples have a twin in ``train``: the same texts but for case and white space."""
    known = set(map(_key, zip(*train.texts, strict=True)))
    return sum(_key(texts) in known for texts in zip(*validation.texts, strict=True))


def empty_texts(examples: Examples) -> int:
    """How many examples have a text that is empty or white space."""
    return sum(any(not text.strip() for text in texts) for texts in zip(*examples.texts, strict=True))


def _key(texts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(" ".join(text.lower().split()) for text in texts)


def _columns(task: Task, split: str, data: str | None, files: Mapping[str, str] | None) -> Columns:
    if files:
        if split not in files:
            raise ConfigError(f"task {task.name}: no file of split {split}; there are: {', '.join(files)}")
        path = Path(files[split])
        if task.kind == SPANS and path.suffix == ".json" and path.is_file():
            return read_squad(path) or read_columns(path)
        return read_columns(path)
    if data is None:
        return hub_columns(task, split)
    if data.startswith(PREFIX):
        return sample_columns(task, split, data)
    return folder_columns(task, split, Path(data))
