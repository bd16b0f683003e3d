"""Each fine-tuned model of a suite on the other tasks' text: what a model fitted to one task says of another.

A model is asked about a task of its own kind with as many outputs as its own. It says the number of a class, which is
taken for the other task's class of that number, whatever the two are called: sst2's negative and positive are imdb's,
rte's entailment is wnli's not_entailment. It is asked about the split ``Task.test``, whose labels are public.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from distil.data.tokenizer import load_tokenizer
from distil.engine.device import DTYPES
from distil.engine.ranks import Ranks
from distil.errors import UserError
from distil.evaluation.judging import Split, logits_of, predictions_of
from distil.finetuning.job import task_of
from distil.finetuning.results import TaskResults
from distil.finetuning.suite_folder import Member
from distil.guard import Guard
from distil.models.constants import in_precision
from distil.models.packed import use_packed_attention
from distil.models.task_heads import run, task_inputs
from distil.models.task_loading import load_fitted_model
from distil.tasks.batch import TaskBatch
from distil.tasks.metrics import mean_percent, score
from distil.tasks.reading import read
from distil.tasks.task import Task
from distil.training import say

CROSS = "cross.json"  # in a run's folder: what its model says of other tasks
NOTE = (
    "Rows: the student fine-tuned for a task, of its seeds the run with the median score (of an even number, the lower "
    "of the middle two). Columns: scores in per cent on a task's test split, or where the labels of that are not "
    "public, on its validation split. A class is taken by its number, whatever it is called; '-' where the two differ "
    "in kind or number of outputs."
)


def medians(runs: Mapping[Member, TaskResults], label: str) -> dict[str, Member]:
    """By task the run of a label whose score is the median of its seeds, of an even number the lower middle one."""
    found = {}
    for name in dict.fromkeys(one.task.name for one in runs if one.label == label):
        those = [one for one in runs if (one.task.name, one.label) == (name, label)]
        ranked = sorted(those, key=lambda one: (runs[one].score, one.seed))
        found[name] = ranked[(len(ranked) - 1) // 2]
    return found


def fits(one: Task, other: Task) -> bool:
    """Whether a model for one task says what is asked of the other."""
    return (one.kind, one.outputs) == (other.kind, other.outputs)


class Crossing:
    """The matrix in the making; every cell is kept in its run's folder as soon as it is there."""

    def __init__(self, members: Mapping[str, Member], precision: str, ranks: Ranks, guard: Guard) -> None:
        self._members, self._precision, self._ranks, self._guard = members, precision, ranks, guard
        self._splits: dict[str, Split | None] = {}

    def fill(self) -> dict[str, dict[str, float | None]]:
        """Scores in percent, by the model's task and the task asked about; None where there is nothing to be read.

        All ranks must call it; what stops a run stops it, too.
        """
        return {name: self._row(one) for name, one in self._members.items()}

    def _row(self, one: Member) -> dict[str, float | None]:
        ranks = self._ranks
        others = [other.task for other in self._members.values() if fits(one.task, other.task)]
        there = ranks.first_does(lambda: one.notes(CROSS))
        known: dict[str, Any] = there.get("scores", {}) if there.get("of") == self._of(one) else {}
        forward = None
        for task in others:
            if task.name in known:
                continue
            self._guard.pass_on(ranks)
            if (split := self._split(task, one)) is None:
                continue
            forward = forward or self._forward(one)
            known[task.name] = {split.name: self._judged(task, split, forward)}
            ranks.first_does(lambda: one.note({"of": self._of(one), "scores": known}, CROSS))
        del forward
        gc.collect()  # a model hangs in cycles, and would hold a device's memory beside the next one's
        return {task.name: mean_percent(known[task.name]) if task.name in known else None for task in others}

    def _of(self, one: Member) -> dict[str, Any]:
        """What decides a row, beside the model itself."""
        numbers = one.numbers
        return {
            "step": one.results().step, "precision": self._precision, "data": numbers.source.data,
            "examples": numbers.data.validation_examples, "max_length": numbers.data.max_length,
        }  # fmt: skip

    def _split(self, task: Task, one: Member) -> Split | None:
        """The text that a task's models are tried on, read once; None, with a line, where it cannot be."""
        if task.name not in self._splits:
            try:
                self._splits[task.name] = self._ranks.all_do(lambda: self._read(task, one))
            except UserError as error:
                say(self._ranks, f"warning: no {task.test} of {task.name} to try other models on: {error}")
                self._splits[task.name] = None
        return self._splits[task.name]

    def _read(self, task: Task, one: Member) -> Split:
        numbers = self._members[task.name].numbers
        task = task_of(numbers.source, numbers.data)
        limit = numbers.data.validation_examples or None
        examples = read(task, task.test, numbers.source.data or None, None, limit)
        return Split.of(task, task.test, examples, load_tokenizer(str(one.export)))

    def _forward(self, one: Member) -> Any:
        """The member's model, which says logits of a batch."""
        model, family = self._ranks.all_do(lambda: load_fitted_model(str(one.export), one.task, torch.float32))
        use_packed_attention(model)
        in_precision(model, DTYPES[self._precision]).to(self._ranks.device).eval()

        @torch.no_grad()
        def forward(batch: TaskBatch) -> torch.Tensor:
            return run(model, family, one.task.kind, task_inputs(batch))[0]

        return forward

    def _judged(self, task: Task, split: Split, forward: Any) -> dict[str, float]:
        """The task's own metrics, as fractions; each rank asks about its share of the batches."""
        ranks, moved = self._ranks, self._guard.heartbeat.moved
        own = logits_of(split, forward, ranks.device, ranks.turns(len(split.batches)), moved)
        logits = {number: rows for part in ranks.gather(own) for number, rows in part.items()}
        return score(task, predictions_of(task, split, logits), split.examples)


def rows(tasks: Sequence[str], cells: Mapping[str, Mapping[str, float | None]]) -> list[list[str]]:
    """The matrix as a person reads it: a row for each model."""
    found = []
    for own in (task for task in tasks if task in cells):
        values = (cells[own].get(task) for task in tasks)
        found.append([f"fitted to {own}", *("-" if value is None else f"{value:.1f}" for value in values)])
    return found
