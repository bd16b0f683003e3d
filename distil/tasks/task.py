"""What a task is: which columns make a sequence, what is to be said of it, and how that is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

CLASSIFICATION, REGRESSION, SPANS = "classification", "regression", "spans"
TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass(frozen=True)
class Task:
    """A task, before its text is read.

    ``columns`` are those of the text, one or two; of SPANS question and context. ``labels`` are the names of classes in
    the order of their ids, empty otherwise. ``metrics`` are names of ``distil.tasks.metrics`` in the order in which
    they are reported. ``validations`` are the splits that it is judged on, MNLI's two by both names; the task's score
    is the mean of all metrics over them, in percent. ``test`` is the split that other tasks' models are tried on; where
    the labels of the test split are not public it is the first of ``validations``.
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    validations: tuple[str, ...] = (VALIDATION,)
    test: str = VALIDATION
    max_length: int = 128
    stride: int = 128  # of SPANS: tokens that two windows of a long context share
    unanswerable: bool = False  # of SPANS: whether a question may have no answer
    source: Mapping[str, str] = field(default_factory=dict)  # of the data: "hub", "config", "layout", "folder"
    # "student", "teacher" and others: the paper's figures in percent, one for the whole task or one for each metric
    paper: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def outputs(self) -> int:
        """Numbers that a model says of a sequence (of SPANS: of a token)."""
        return {CLASSIFICATION: len(self.labels), REGRESSION: 1, SPANS: 2}[self.kind]


@dataclass(frozen=True)
class Answer:
    """The answers of a question that count as right: their texts, and the character at which each starts.

    Both empty where the question has no answer.
    """

    texts: tuple[str, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Examples:
    """A split of a task, whole: ``texts`` holds a list for each of the task's columns.

    ``labels`` are class ids (int64) or values (float32), one an example; of SPANS it is empty and ``answers`` holds
    them. ``ids`` name the examples in predictions. ``where`` is what they were read from, for messages.
    """

    ids: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    labels: np.ndarray
    answers: tuple[Answer, ...] = ()
    where: str = ""

    def __len__(self) -> int:
        return len(self.ids)

    def chosen(self, numbers: np.ndarray) -> Self:
        """The examples of these numbers, in this order."""
        return replace(
            self,
            ids=tuple(self.ids[i] for i in numbers),
            texts=tuple(tuple(column[i] for i in numbers) for column in self.texts),
            labels=self.labels[numbers] if len(self.labels) else self.labels,
            answers=tuple(self.answers[i] for i in numbers) if self.answers else (),
        )
