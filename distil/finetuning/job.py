"""A fine-tuning made concrete: its task, its text as sequences, its models' configs, and how long it is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import transformers

from distil.data.samples import PREFIX
from distil.data.tokenizer import fingerprint, load_tokenizer, vocab_size
from distil.engine.ranks import Ranks
from distil.errors import ConfigError, DataError
from distil.evaluation.judging import Split
from distil.finetuning.options import FineTuning
from distil.models.families import family_of
from distil.models.loading import load_config, weights_fingerprint
from distil.placement import Placement
from distil.tasks import catalogue
from distil.tasks.batch import Features
from distil.tasks.features import features_of
from distil.tasks.reading import empty_texts, local_task, overlap, read
from distil.tasks.tables import TaskData, TaskSource
from distil.tasks.task import SPANS, TRAIN, Examples, Task


@dataclass(frozen=True)
class FineTuningJob:
    """Everything that is known before a model is loaded; the same on every rank.

    ``splits`` are what the model is judged on; ``weights`` tell the model's and the teacher's from any others'.
    """

    task: Task
    numbers: FineTuning
    placement: Placement
    tokenizer: transformers.PreTrainedTokenizerFast
    train: Features
    train_examples: int
    splits: tuple[Split, ...]
    weights: dict[str, str]
    warnings: tuple[str, ...]
    total_steps: int
    stop_step: int

    @property
    def name(self) -> str:
        """What a run of it is called."""
        return f"finetune-{self.task.name}"

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run."""
        return {
            "fine-tuning": {"task": self.task.name, "labels": list(self.task.labels), **self.numbers.numbers()},
            "text": {TRAIN: digest(self.train), **{split.name: digest(split.features) for split in self.splits}},
            "tokenizer": fingerprint(self.tokenizer),
            "weights": self.weights,
        }


def digest(features: Features) -> str:
    """What tells sequences and their labels from any others."""
    sha = hashlib.sha256()
    for array in (features.input_ids, features.token_types, features.starts, features.labels):
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def task_of(source: TaskSource, data: TaskData) -> Task:
    """The task that is asked for. Raises ConfigError for an unknown one, DataError for files that cannot be read."""
    if source.task:
        task = catalogue.find(source.task)
        task = catalogue.with_columns(task, source.text_columns or task.columns, source.label_column or task.label)
    else:
        columns, label = source.text_columns or ("text",), source.label_column or "label"
        task = local_task(source.files, columns, label, regression=source.regression)
    if source.files:
        task = catalogue.on_files(task, source.files)
    task = catalogue.on_data(task, source.data)
    return replace(task, max_length=data.max_length or task.max_length, stride=data.stride or task.stride)


def settle(numbers: FineTuning, placement: Placement, max_steps: int | None, ranks: Ranks) -> FineTuningJob:
    """Read the task and hold it against the models. Raises DataError and ConfigError. All ranks must call it."""
    source, data, start = numbers.source, numbers.data, numbers.start
    task = ranks.all_do(lambda: task_of(source, data))
    tokenizer = ranks.all_do(lambda: _tokenizer_of(numbers, task))

    def reading(split: str) -> Examples:
        limit = (data.train_examples if split == TRAIN else data.validation_examples) or None
        return read(task, split, source.data or None, source.files or None, limit)

    names = (TRAIN, *task.validations)
    if not source.files and (not source.data or source.data.startswith(PREFIX)):
        ranks.first_does(lambda: [len(reading(name)) for name in names])  # what is downloaded is so by one
    examples = ranks.all_do(lambda: {name: reading(name) for name in names})
    train = ranks.all_do(lambda: features_of(task, examples[TRAIN], tokenizer))
    splits = ranks.all_do(lambda: tuple(Split.of(task, name, examples[name], tokenizer) for name in task.validations))
    weights = ranks.all_do(
        lambda: {
            role: weights_fingerprint(name, load_config(name))
            for role, name in (("model", start.model), ("teacher", start.teacher))
            if name
        }
    )
    total = numbers.optimizer.steps or -(-numbers.optimizer.epochs * len(train) // data.batch_size)
    warnings = tuple(_warnings(task, examples, train))
    return FineTuningJob(
        task, numbers, placement, tokenizer, train, len(examples[TRAIN]), splits, weights, warnings, total,
        min(total, max_steps or total),
    )  # fmt: skip


def _tokenizer_of(numbers: FineTuning, task: Task) -> transformers.PreTrainedTokenizerFast:
    """The tokenizer of the model, which the teacher must share; both must have positions enough."""
    start = numbers.start
    models = [name for name in (start.model, start.teacher) if name]
    configs = [load_config(name) for name in models]  # first, since it says of a folder that it is not there
    tokenizers = [load_tokenizer(name) for name in models]
    if len({fingerprint(tokenizer) for tokenizer in tokenizers}) > 1:
        raise ConfigError(
            f"model {start.model} and teacher {start.teacher} have different tokenizers, but read the same ids; give "
            "a teacher that is fitted with the model's tokenizer"
        )
    for name, config, tokenizer in zip(models, configs, tokenizers, strict=True):
        if (ids := vocab_size(tokenizer)) > config.vocab_size:
            raise DataError(
                f"model {name} has a vocabulary of {config.vocab_size}, its tokenizer one of {ids}: they are not of "
                "one model; put the tokenizer there that it was trained with"
            )
        if task.max_length > (longest := family_of(config).longest(config)):
            raise ConfigError(
                f"sequences of {task.name} have up to {task.max_length} tokens, {name} has {longest} positions; give "
                f"--max_length {longest} or less"
            )
    return tokenizers[0]


def _warnings(task: Task, examples: dict[str, Examples], train: Features) -> list[str]:
    """What is out of the ordinary with the text, in lines."""
    found = []
    for name in task.validations:
        if twins := overlap(examples[TRAIN], examples[name]):
            found.append(
                f"{twins:,} of {len(examples[name]):,} examples of {name} are in {TRAIN}, too: figures flatter"
            )
    for name, split in examples.items():
        if empty := empty_texts(split):
            found.append(f"{empty:,} of {len(split):,} examples of {name} have an empty text")
    cut = int((train.lengths == task.max_length).sum())
    if task.kind != SPANS and 2 * cut > len(train):
        found.append(f"{cut:,} of {len(train):,} sequences of {TRAIN} fill all {task.max_length} tokens: most are cut")
    return found
