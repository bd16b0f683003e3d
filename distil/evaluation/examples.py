"""Sequences that models are timed and judged on: token ids, and what should be said of them where that is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from torch import Tensor

from distil.errors import ConfigError, DataError
from distil.kernels import IGNORED
from distil.tasks.batch import Features

SYNTHETIC = 1500  # as many as STS-B's development set has pairs
LENGTH, SPREAD, SHORTEST, LONGEST = 29.0, 0.4, 8, 128  # median, sigma of the logarithm, ends
SEED = 0
MASKED = 0.15  # share of the tokens of a text that a masked model is asked for

Inputs = dict[str, Tensor]
Label = int | float | tuple[int, ...]


@dataclass(frozen=True)
class Example:
    """One encoded sequence. ``label`` is a class, a value, the first and last place of an answer, or a label a token.

    Of a label a token IGNORED means that nothing is asked there.
    """

    ids: tuple[int, ...]
    token_types: tuple[int, ...] | None = None
    label: Label | None = None


@dataclass(frozen=True)
class Evaluation:
    """A set by name: ``what`` says in words what it is of, ``examples`` are in its order."""

    what: str
    examples: tuple[Example, ...]

    @property
    def tokens(self) -> int:
        """Of all its sequences."""
        return sum(len(example.ids) for example in self.examples)


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
        "average (lengths made up, as of sentence pairs)",
        examples,
    )


def of_text(
    path: str, tokenizer: transformers.PreTrainedTokenizerFast, longest: int, count: int | None = None,
    asks: str | None = None,
) -> Evaluation:  # fmt: skip
    """The lines of a UTF-8 file that are not blank, encoded, cut at ``longest`` tokens; the first ``count`` of them.

    ``asks`` "mlm" masks a fixed 15 % of the tokens, special ones left out, and "clm" asks for each next one, so that
    accuracy can be told. Raises DataError for a file without text.
    """
    try:
        lines = [line for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()][:count]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text: {error}") from error
    if not lines:
        raise DataError(f"{path} holds no text; give a file with a text in each line")
    coded = tokenizer(lines, truncation=True, max_length=longest, return_special_tokens_mask=True)
    rng = np.random.default_rng(SEED)
    examples = []
    for i, ids in enumerate(coded["input_ids"]):
        types = coded["token_type_ids"][i] if "token_type_ids" in coded else None
        label: Label | None = None
        if asks == "mlm":
            words = ~np.array(coded["special_tokens_mask"][i], dtype=bool)
            ids, label = _masked(np.array(ids), words & (rng.random(len(ids)) < MASKED), tokenizer.mask_token_id)
        elif asks == "clm":
            label = (*ids[1:], IGNORED)
        if ids:
            examples.append(Example(tuple(ids), None if types is None else tuple(types), label))
    if not examples:
        raise DataError(f"{path}: the tokenizer makes no token of its text")
    evaluation = Evaluation("", tuple(examples))
    mean = evaluation.tokens / len(examples)
    return Evaluation(f"{len(examples):,} lines of {path}, {mean:.1f} tokens on average", tuple(examples))


def _masked(ids: np.ndarray, chosen: np.ndarray, mask_id: int) -> tuple[list[int], tuple[int, ...]]:
    labels = np.where(chosen, ids, IGNORED)
    return np.where(chosen, mask_id, ids).tolist(), tuple(labels.tolist())


def of_features(features: Features, what: str, token_types: bool, count: int | None = None) -> Evaluation:
    """The first ``count`` sequences of a task's split; ``token_types`` where the model knows two of them."""
    examples = []
    for i in range(min(len(features), count or len(features))):
        part = slice(features.starts[i], features.starts[i + 1])
        label = features.labels[i].tolist() if len(features.labels) else None
        examples.append(
            Example(
                tuple(features.input_ids[part].tolist()),
                tuple(features.token_types[part].tolist()) if token_types else None,
                tuple(label) if isinstance(label, list) else label,
            )
        )
    return Evaluation(what, tuple(examples))


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


def refuse_size(count: int | None) -> None:
    """Raise ConfigError for a number of sequences that is none."""
    if count is not None and count < 1:
        raise ConfigError(f"--sequences is {count}; it must be 1 or more")
