"""A model held against a split of a task: logits in, the task's own metrics out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from distil.tasks.batch import Features, TaskBatch
from distil.tasks.features import features_of
from distil.tasks.order import evaluation_batches
from distil.tasks.spans import answers
from distil.tasks.task import CLASSIFICATION, REGRESSION, Examples, Task

BUDGET_TOKENS = 4096  # of a batch: of no recipe, and no model is trained by it

Predictions = np.ndarray | list[str]  # class ids, values, or texts, one an example


@dataclass(frozen=True)
class Split:
    """A split, ready to be judged on; ``batches`` are numbers of sequences, longest first."""

    name: str
    examples: Examples
    features: Features
    batches: list[np.ndarray]

    @classmethod
    def of(cls, task: Task, name: str, examples: Examples, tokenizer: PreTrainedTokenizerFast) -> Split:
        """The examples, tokenised and in batches of like lengths."""
        features = features_of(task, examples, tokenizer)
        return cls(name, examples, features, evaluation_batches(features, BUDGET_TOKENS))

    def batch(self, number: int) -> TaskBatch:
        """Batch ``number`` of ``batches``."""
        return TaskBatch.of(self.features, self.batches[number])


def logits_of(
    split: Split, forward: Callable[[TaskBatch], Tensor], device: torch.device, turns: Iterable[tuple[int, bool]],
    moved: Callable[[], None] = lambda: None,
) -> dict[int, np.ndarray]:  # fmt: skip
    """Logits (B, C), of SPANS (N, 2), of those batches among ``turns`` that count, by number, in fp32.

    ``moved`` is told of every batch.
    """
    found = {}
    for number, counts in turns:
        logits = forward(split.batch(number).to(device))
        if counts:
            found[number] = logits.float().cpu().numpy()
        moved()
    return found


def predictions_of(task: Task, split: Split, logits: Mapping[int, np.ndarray]) -> Predictions:
    """What the logits of all batches say of each example."""
    features = split.features
    if task.kind in (CLASSIFICATION, REGRESSION):
        rows = np.empty((len(features), task.outputs), np.float32)
        for number, sequences in enumerate(split.batches):
            rows[sequences] = logits[number]
        return rows.argmax(1) if task.kind == CLASSIFICATION else rows[:, 0]
    tokens = np.empty((len(features.input_ids), 2), np.float32)
    for number, sequences in enumerate(split.batches):
        tokens[features.places(sequences)] = logits[number]
    return answers(features, split.examples, tokens[:, 0], tokens[:, 1], task.unanswerable)


class Hands(Protocol):
    """As much of the ranks as sharing the batches of a split among them takes."""

    @property
    def device(self) -> torch.device: ...
    def turns(self, count: int) -> Iterable[tuple[int, bool]]: ...
    def gather(self, value: dict[int, np.ndarray]) -> list[dict[int, np.ndarray]]: ...


def predictions(
    task: Task, split: Split, forward: Callable[[TaskBatch], Tensor], ranks: Hands, moved: Callable[[], None]
) -> Predictions:
    """What a model says of each example, on every rank; each computes its share. All must call it."""
    own = logits_of(split, forward, ranks.device, ranks.turns(len(split.batches)), moved)
    return predictions_of(task, split, {number: rows for part in ranks.gather(own) for number, rows in part.items()})


def agreement(task: Task, some: Predictions, others: Predictions) -> float | None:
    """Share of examples of which two models say the same; None of a regression, which has no same."""
    if task.kind == REGRESSION:
        return None
    return float(np.mean([one == other for one, other in zip(some, others, strict=True)]))
