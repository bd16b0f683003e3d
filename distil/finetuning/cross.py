"""Each fine-tuned student of a suite on the other tasks' text: what a model fitted to one task says of another.

A model is asked about a task of its own kind with as many outputs as its own. Where both tasks have classes of the same
names these are taken by name, in whatever order a task has them (rte's entailment is wnli's, which comes second there);
otherwise by number: sst2's negative and positive are imdb's neg and pos. It is asked about the split ``Task.test``,
whose labels are public.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from distil.data.tokenizer import fingerprint, load_tokenizer
from distil.engine.device import DTYPES
from distil.engine.ranks import Ranks
from distil.errors import UserError
from distil.evaluation.judging import Split, predictions
from distil.finetuning.job import task_of
from distil.finetuning.options import FineTuning
from distil.finetuning.results import TaskResults
from distil.finetuning.suite_folder import DATA, Member
from distil.finetuning.suite_options import DIRECT, SECOND, STUDENT, Suite
from distil.finetuning.suite_table import TITLES
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
TEXT, SCORES = "text", "scores"  # there, of a task: where the text was and how it was cut, and fractions by split
LABELS = (STUDENT, SECOND, DIRECT)  # whose runs are asked
NOTE = (
    "Rows: the student fine-tuned for a task, of its seeds the run with the median score (of an even number, the lower "
    "of the middle two). Columns: scores in per cent on a task's test split, or where the labels of that are not "
    "public, on its validation split. Classes are taken by name where both tasks name them alike, in whatever order, "
    "else by number; '-' where the two differ in kind or number of outputs."
)
Row = dict[str, float | None]  # scores in percent by the task asked about; None where there is nothing to be read


def medians(runs: Mapping[Member, TaskResults]) -> dict[tuple[str, str], Member]:
    """By label and task the run whose score is the median of its seeds, of an even number the lower middle one."""
    found = {}
    for label in LABELS:
        for name in dict.fromkeys(one.task.name for one in runs if one.label == label):
            those = [one for one in runs if (one.task.name, one.label) == (name, label)]
            ranked = sorted(those, key=lambda one: (runs[one].score, one.seed))
            found[label, name] = ranked[(len(ranked) - 1) // 2]
    return found


def fits(one: Task, other: Task) -> bool:
    """Whether a model for one task says what is asked of the other."""
    return (one.kind, one.outputs) == (other.kind, other.outputs)


def order(one: Task, other: Task) -> list[int]:
    """For each output that is asked of a model for the one task the number of its own that stands for it.

    The two tasks fit.
    """
    same = one.labels and set(one.labels) == set(other.labels)
    return [one.labels.index(name) for name in other.labels] if same else list(range(one.outputs))


class Crossing:
    """The matrix in the making; every cell is kept in its run's folder as soon as it is there."""

    def __init__(
        self, suite: Suite, members: Mapping[tuple[str, str], Member], precision: str, ranks: Ranks, guard: Guard
    ) -> None:  # fmt: skip
        self._suite, self._members, self._precision = suite, members, precision
        self._ranks, self._guard = ranks, guard
        self._tasks = {one.task.name: one for one in members.values()}  # with a run of each
        self._splits: dict[tuple[str, str], Split | None] = {}

    @property
    def several(self) -> bool:
        """Whether there is any other task to ask about."""
        return len(self._tasks) > 1

    def fill(self) -> dict[str, dict[str, Row]]:
        """Rows by label and the model's task.

        All ranks must call it; what stops a run stops it, too.
        """
        found: dict[str, dict[str, Row]] = {}
        for (label, name), one in self._members.items():
            found.setdefault(label, {})[name] = self._row(one)
        return found

    def _row(self, one: Member) -> Row:
        ranks = self._ranks
        others = [other for other in self._tasks.values() if fits(one.task, other.task)]
        numbers, known = ranks.first_does(lambda: ({o.task.name: self._numbers(o) for o in others}, self._known(one)))
        tokenizer = forward = None
        for task in (other.task for other in others):
            text = [numbers[task.name].source.data, *self._cut(numbers[task.name])]
            if known.get(task.name, {}).get(TEXT) == text:
                continue
            self._guard.pass_on(ranks)
            tokenizer = tokenizer or ranks.all_do(lambda: load_tokenizer(str(one.export)))
            if (split := self._split(numbers[task.name], task, tokenizer)) is None:
                known.pop(task.name, None)
                continue
            forward = forward or self._forward(one)
            known[task.name] = {TEXT: text, SCORES: {split.name: self._judged(one.task, task, split, forward)}}
            kept = {"of": self._of(one), "by_task": known}
            ranks.first_does(lambda kept=kept: one.note(kept, CROSS))
        del forward
        gc.collect()  # a model hangs in cycles, and would hold a device's memory beside the next one's
        each = {other.task.name: known.get(other.task.name, {}).get(SCORES) for other in others}
        return {name: mean_percent(scores) if scores else None for name, scores in each.items()}

    def _known(self, one: Member) -> dict[str, Any]:
        """What an earlier matrix has found of this very model."""
        there = one.notes(CROSS)
        return there.get("by_task", {}) if there.get("of") == self._of(one) else {}

    def _of(self, one: Member) -> dict[str, Any]:
        return {"step": one.results().step, "precision": self._precision}

    def _numbers(self, one: Member) -> FineTuning:
        """Where the text of a run's task was when it was made, and how much of it counts."""
        numbers = self._suite.numbers(one.task, STUDENT, one.seed)
        data = str(one.notes().get(DATA, numbers.source.data))
        return replace(numbers, source=replace(numbers.source, data=data))

    @staticmethod
    def _cut(numbers: FineTuning) -> tuple[int, int]:
        return numbers.data.validation_examples, numbers.data.max_length

    def _split(self, numbers: FineTuning, task: Task, tokenizer: PreTrainedTokenizerFast) -> Split | None:
        """The text that a task's models are tried on, read once; None, with a line, where it cannot be."""
        key = (task.name, fingerprint(tokenizer))
        if key not in self._splits:
            try:
                self._splits[key] = self._ranks.all_do(lambda: self._read(numbers, tokenizer))
            except UserError as error:
                say(self._ranks, f"warning: no {task.test} of {task.name} to try other models on: {error}")
                self._splits[key] = None
        return self._splits[key]

    def _read(self, numbers: FineTuning, tokenizer: PreTrainedTokenizerFast) -> Split:
        task = task_of(numbers.source, numbers.data)
        examples = read(task, task.test, numbers.source.data or None, None, numbers.data.validation_examples or None)
        return Split.of(task, task.test, examples, tokenizer)

    def _forward(self, one: Member) -> Any:
        """The member's model, which says logits of a batch."""
        model, family = self._ranks.all_do(lambda: load_fitted_model(str(one.export), one.task, torch.float32))
        use_packed_attention(model)
        in_precision(model, DTYPES[self._precision]).to(self._ranks.device).eval()

        @torch.no_grad()
        def forward(batch: TaskBatch) -> torch.Tensor:
            return run(model, family, one.task.kind, task_inputs(batch))[0]

        return forward

    def _judged(self, own: Task, task: Task, split: Split, forward: Any) -> dict[str, float]:
        """The task's own metrics, as fractions; each rank asks about its share of the batches."""
        ranks, moved, places = self._ranks, self._guard.heartbeat.moved, order(own, task)
        said = predictions(task, split, lambda batch: forward(batch)[:, places], ranks, moved)
        return score(task, said, split.examples)


def rows(tasks: Sequence[str], cells: Mapping[str, Mapping[str, Row]]) -> list[list[str]]:
    """The matrix as a person reads it: a row for each model."""
    found = []
    for label, of_label in cells.items():
        for own in (task for task in tasks if task in of_label):
            values = (of_label[own].get(task) for task in tasks)
            title = f"{TITLES[label]}, fitted to {own}"
            found.append([title, *("-" if value is None else f"{value:.1f}" for value in values)])
    return found
