"""Labels as a file has them, numbers or words, and as a model learns them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from distil.errors import DataError
from distil.fields import nearest
from distil.tasks.task import REGRESSION, Task


def word_of(value: Any) -> str:
    """A label as text, the same whether it stood in a text file or in one with types: 1, 1.0 and "1" are one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def classes_in(values: Sequence[Any], place: Callable[[int], str]) -> tuple[str, ...]:
    """The classes of a column, in order: by value if all are integers, else by name.

    Raises DataError for an empty label, and where there is one class or one for each row.
    """
    words = [word_of(value) for value in values]
    for row, (value, word) in enumerate(zip(values, words, strict=True)):
        if value is None or word == "":
            raise DataError(f"{place(row)}: has no label")
    classes = set(words)
    if len(classes) < 2:
        raise DataError(f"{place(0)}: its label, {words[0]}, is that of every row; two classes are the least")
    if len(classes) > 2 and len(classes) == len(words):
        raise DataError(f"{place(0)}: every row has a label of its own: is this the column, or is it a regression?")
    return tuple(sorted(classes, key=int if all(map(_is_integer, classes)) else str))


def labels_of(task: Task, values: Sequence[Any], place: Callable[[int], str]) -> np.ndarray:
    """Class ids (int64), or values (float32) of a regression.

    A class is given by its name or, unless names are numbers themselves, by its id. Raises DataError, with the place,
    for any other label.
    """
    if task.kind == REGRESSION:
        return np.array([_number(value, row, place) for row, value in enumerate(values)], dtype=np.float32)
    known = {name: i for i, name in enumerate(task.labels)}
    if not any(map(_is_integer, task.labels)):
        known |= {str(i): i for i in range(len(task.labels))}
    ids = np.empty(len(values), dtype=np.int64)
    for row, value in enumerate(values):
        word = word_of(value)
        if word not in known:
            more = "; the labels of this split are not public" if word == "-1" else nearest(word, task.labels)
            raise DataError(f"{place(row)}: label {word!r} is none of {task.name}'s: {', '.join(task.labels)}{more}")
        ids[row] = known[word]
    return ids


def _number(value: Any, row: int, place: Callable[[int], str]) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{place(row)}: label {value!r} is no number")
    return number


def _is_integer(word: str) -> bool:
    return word.removeprefix("-").isdecimal()
