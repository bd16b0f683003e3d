"""Sequences that models are timed and judged on: token ids, and how what is said of them is scored where that is known.

Random ids, lines of a text, or a split of a task; then batches as stock models take them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor

from distil.errors import DataError
from distil.evaluation.judging import Split, predictions_of
from distil.kernels import IGNORED
from distil.tasks.features import features_of
from distil.tasks.metrics import score
from distil.tasks.task import SPANS, Examples, Task

SYNTHETIC = 1500  # as many as STS-B's development set has pairs
LENGTH, SPREAD, SHORTEST, LONGEST = 29.0, 0.4, 8, 128  # median, sigma of the logarithm, ends
SEED = 0
MASKED = 0.15  # share of the tokens of a text that a masked model is asked for

Inputs = dict[str, Tensor]
Said = np.ndarray  # of one sequence: its likeliest ids (n,), or a task's logits (C,), of SPANS (n, 2)


@dataclass(frozen=True)
class Example:
    """One encoded sequence."""

    ids: tuple[int, ...]
    token_types: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Evaluation:
    """A set by name: ``what`` says in words what it is of.

    ``score`` makes a fraction of what a model says of all examples, in their order, ``scored`` says in words of what;
    None and "" where nothing is known of them.
    """

    what: str
    examples: tuple[Example, ...]
    score: Callable[[Sequence[Said]], float] | None = None
    scored: str = ""


def synthetic(vocabulary: int, longest: int, count: int | None = None) -> Evaluation:
    """Random ids below ``vocabulary`` in sequences of lengths as sentence pairs have them, always the same.

    The lengths are made up: log-normal, 31 tokens on average, cut off at 8 and at 128 or the ``longest`` that models
    have positions for.
    """
    rng = np.random.default_rng(SEED)
    count = count or SYNTHETIC
    lengths = np.rint(rng.lognormal(np.log(LENGTH), SPREAD, count)).clip(SHORTEST, LONGEST).astype(int)
    lengths = np.minimum(lengths, longest)
    examples = tuple(Example(tuple(rng.integers(vocabulary, size=n).tolist())) for n in lengths)
    return Evaluation(
        f"{count:,} sequences of random ids, {lengths.min()} to {lengths.max()} tokens, {lengths.mean():.1f} on "
        "average (lengths made up, as of sentence pairs; what forms keep, --text or --task tells)",
        examples,
    )


def of_text(
    path: str, tokenizer: transformers.PreTrainedTokenizerFast, kind: str, longest: int, token_types: bool,
    count: int | None = None,
) -> Evaluation:  # fmt: skip
    """The first ``count`` lines of a UTF-8 file that are not blank, encoded, cut at ``longest`` tokens.

    For a model of ``kind`` "mlm" a fixed 15 % of the tokens, special ones left out, are masked and asked for; a "clm"
    is asked for each next one. Raises DataError for a file without text.
    """
    try:
        lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()][:count]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from error
    if not lines:
        raise DataError(f"{path} holds no text; give a file with a text in each line")
    if kind == "mlm" and tokenizer.mask_token_id is None:
        raise DataError(f"the tokenizer of {tokenizer.name_or_path} has no mask token; add it to tokenizer_config.json")
    coded = tokenizer(
        lines, truncation=True, max_length=longest, return_special_tokens_mask=True, return_token_type_ids=True
    )
    rng = np.random.default_rng(SEED)
    examples, labels = [], []
    for line, row, types, special in zip(
        lines, coded["input_ids"], coded["token_type_ids"], coded["special_tokens_mask"], strict=True
    ):
        if not row:
            raise DataError(f"{path}: the tokenizer makes no token of the text {line[:40]!r}; remove it")
        ids = np.array(row)
        asked = ~np.array(special, dtype=bool) & (rng.random(len(ids)) < MASKED)
        if kind == "mlm":
            labels.append(np.where(asked, ids, IGNORED))
            ids = np.where(asked, tokenizer.mask_token_id, ids)
        elif kind == "clm":
            labels.append(np.append(ids[1:], IGNORED))
        examples.append(Example(tuple(ids.tolist()), tuple(types) if token_types else None))
    mean = sum(len(example.ids) for example in examples) / len(examples)
    what = f"{len(examples):,} lines of {path}, {mean:.1f} tokens on average"
    if not labels or all((row == IGNORED).all() for row in labels):
        return Evaluation(what, tuple(examples))
    scored = "masked tokens guessed right" if kind == "mlm" else "next tokens guessed right"
    return Evaluation(what, tuple(examples), lambda said: share_right(said, labels), scored)


def share_right(said: Sequence[Said], labels: Sequence[np.ndarray]) -> float:
    """Share of the tokens with a label that are said as it has them."""
    all_said, all_labels = np.concatenate(said), np.concatenate(labels)
    asked = all_labels != IGNORED
    return float((all_said[asked] == all_labels[asked]).mean())


def of_task(
    task: Task, examples: Examples, tokenizer: transformers.PreTrainedTokenizerFast, longest: int, token_types: bool
) -> Evaluation:
    """A split of a task, scored by the mean of the task's metrics; of SPANS a long context is several sequences."""
    features = features_of(task, examples, tokenizer, min(task.max_length, longest))
    split = Split("", examples, features, [np.array([i]) for i in range(len(features))])

    def scored(said: Sequence[Said]) -> float:
        by_batch = {i: row if task.kind == SPANS else row[None] for i, row in enumerate(said)}
        return float(np.mean(list(score(task, predictions_of(task, split, by_batch), examples).values())))

    sequences = []
    for start, stop in zip(features.starts[:-1], features.starts[1:], strict=True):
        ids, types = (part[start:stop].tolist() for part in (features.input_ids, features.token_types))
        sequences.append(Example(tuple(ids), tuple(types) if token_types else None))
    what = f"{len(sequences):,} sequences of {task.name} ({examples.where}), {features.lengths.mean():.1f} tokens on "
    return Evaluation(f"{what}average", tuple(sequences), scored, " and ".join(task.metrics).replace("_", " "))


def inputs_of(examples: Sequence[Example], pad_id: int) -> Inputs:
    """A batch as stock models take it: int64 (B, L), padded at the end to its longest sequence."""
    shape = (len(examples), max(len(example.ids) for example in examples))
    inputs = {"input_ids": torch.full(shape, pad_id), "attention_mask": torch.zeros(shape, dtype=torch.long)}
    if examples[0].token_types is not None:
        inputs["token_type_ids"] = torch.zeros(shape, dtype=torch.long)
    for i, example in enumerate(examples):
        n = len(example.ids)
        inputs["input_ids"][i, :n] = torch.tensor(example.ids)
        inputs["attention_mask"][i, :n] = 1
        if example.token_types is not None:
            inputs["token_type_ids"][i, :n] = torch.tensor(example.token_types)
    return inputs


def batches(examples: Sequence[Example], size: int, pad_id: int) -> list[Inputs]:
    """All examples in their order, ``size`` at a time; the last batch may be smaller."""
    return [inputs_of(examples[i : i + size], pad_id) for i in range(0, len(examples), size)]
