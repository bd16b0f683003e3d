"""A task's text as sequences of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from distil.data.tokenizer import special_ids
from distil.errors import ConfigError, DataError
from distil.tasks.batch import Features
from distil.tasks.task import SPANS, Examples, Task
from distil.tasks.windows import windows_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH = 1000  # examples tokenised at once: as Python's lists they take a hundred times the memory of their ids


def features_of(
    task: Task, examples: Examples, tokenizer: PreTrainedTokenizerFast, max_length: int | None = None
) -> Features:
    """The examples, tokenised as the tokenizer does it, special tokens and types included; deterministic.

    Sequences are cut at ``max_length`` (default: the task's) tokens, of a pair the longer text first; of SPANS contexts
    are read in windows instead (``windows_of``). Token types are those of the tokenizer's own template, 1 for BERT's
    second text, also where the model it belongs to takes none (DistilBERT), since its teacher may. A text without any
    token becomes the one that opens or closes a sequence. Raises ConfigError for a length that leaves no room for text.
    """
    max_length = task.max_length if max_length is None else max_length
    special = tokenizer.num_special_tokens_to_add(pair=len(task.columns) == 2)
    if max_length < special + len(task.columns):
        raise ConfigError(f"max_length is {max_length}; with {special} special tokens there is no room for text")
    if task.kind == SPANS:
        return windows_of(task, examples, tokenizer, max_length)
    parts = list(_tokenised(examples, tokenizer, max_length))
    tokenizer.backend_tokenizer.no_truncation()  # it would be written with the tokenizer
    lengths = np.concatenate([lengths for _, _, lengths in parts])
    return Features(
        input_ids=np.concatenate([ids for ids, _, _ in parts]),
        token_types=np.concatenate([types for _, types, _ in parts]),
        starts=np.concatenate(([0], np.cumsum(lengths))),
        labels=examples.labels,
        examples=np.arange(len(examples)),
    )


def _tokenised(
    examples: Examples, tokenizer: PreTrainedTokenizerFast, max_length: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Ids and types of a batch, end to end, and the lengths of its sequences."""
    special = special_ids(tokenizer)
    lone = next((special[name] for name in ("cls", "sep", "unk") if name in special), None)
    for start in range(0, len(examples), BATCH):
        texts = [list(column[start : start + BATCH]) for column in examples.texts]
        encoded = tokenizer(
            *texts,
            truncation="longest_first",
            max_length=max_length,
            return_token_type_ids=True,
            return_attention_mask=False,
        )
        rows, types = encoded["input_ids"], encoded["token_type_ids"]
        for i, row in enumerate(rows):
            if not row:
                if lone is None:
                    raise DataError(f"{examples.where}: example {examples.ids[start + i]} has no token; leave it out")
                rows[i], types[i] = [lone], [0]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        yield _flat(rows, lengths), _flat(types, lengths), lengths


def _flat(rows: list[list[int]], lengths: np.ndarray) -> np.ndarray:
    return np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum()))
