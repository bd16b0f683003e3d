"""What a task is: which columns make a sequence, what is to be said of it, and how that is judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

CLASSIFICATION, REGRESSION, SPANS = "classification", "regression", "spans"
TRAIN, VALIDATION, TEST = "train", "validation", "test"


@dataclass(frozen=True)
class Task:
    """A task, before its text is read.

    ``columns`` are those of the text, one or two; of SPANS question and context. ``labels`` are the names of classes in
    the order of their ids, empty otherwise. ``metrics`` are names of ``distil.tasks.metrics`` in the order in which
    they are reported. ``validations`` are the splits that it is judged on, MNLI's two by both names; the task's score
    is the mean of all metrics over them, in percent. ``test`` is the split that other tasks' models are tried on.
    """

    name: str
    kind: str
    columns: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    validations: tuple[str, ...] = (VALIDATION,)
    max_length: int = 128
    stride: int = 128  # of SPANS: tokens that two windows of a long context share
    unanswerable: bool = False  # of SPANS: whether a question may have no answer
    source: Mapping[str, str] = field(default_factory=dict)  # of the data: where it is to be had, in the reader's words
    paper: Mapping[str, float] = field(default_factory=dict)  # "student" and "teacher": the paper's score, in percent

    @property
    def outputs(self) -> int:
        """Numbers that a model says of a sequence (of SPANS: of a token)."""
        return {CLASSIFICATION: len(self.labels), REGRESSION: 1, SPANS: 2}[self.kind]


@dataclass(frozen=True)
class Answer:
    """The answers of a question that count as right: their texts, and the character at which each starts.

    None where the question has no answer.
    """

    texts: tuple[str, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Examples:
    """A split of a task, whole: ``texts`` holds a list for each of the task's columns.

    ``labels`` are class ids (int64) or values (float32), one an example; of SPANS it is empty and ``answers`` holds
    them. ``ids`` name the examples in predictions.
    """

    ids: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    labels: np.ndarray
    answers: tuple[Answer, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)
