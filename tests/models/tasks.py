"""A small random model of each family for each kind of task, and batches for them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import transformers
from tiny import VOCAB, config, randomised

from distil.models.families import FAMILIES
from distil.models.task_heads import task_family
from distil.tasks.batch import Features, TaskBatch
from distil.tasks.task import CLASSIFICATION, REGRESSION, SPANS, Task

KINDS = (CLASSIFICATION, REGRESSION, SPANS)
LABELS = ("bad", "fair", "good")


def a_task(kind: str = CLASSIFICATION, labels: tuple[str, ...] = LABELS, name: str = "mine") -> Task:
    """A task of pairs."""
    return Task(name, kind, ("one", "two"), "label", labels if kind == CLASSIFICATION else (), ("accuracy",))


def tiny_task(family: str, kind: str, seed: int = 0, **changes: object) -> transformers.PreTrainedModel:
    """A small model for a task of ``kind``, every parameter random, in eval mode."""
    pad = {"pad_token_id": 4} if family == "gpt2" else {}
    shape = config(family, **{"num_labels": a_task(kind).outputs, **pad, **changes})
    return randomised(task_family(FAMILIES[family], kind).model_class(shape), seed)


def features(lengths: Iterable[int], kind: str = CLASSIFICATION, seed: int = 0) -> Features:
    """Sequences of random ids and labels; of each the second half has the second token type."""
    draw, lengths = np.random.default_rng(seed), np.array(list(lengths))
    starts = np.concatenate(([0], np.cumsum(lengths)))
    types = np.concatenate([np.arange(n) >= (n + 1) // 2 for n in lengths])
    labels = {
        CLASSIFICATION: draw.integers(0, len(LABELS), len(lengths)),
        REGRESSION: draw.normal(size=len(lengths)).astype(np.float32),
        SPANS: np.sort(draw.integers(0, lengths[:, None], (len(lengths), 2)), axis=1),
    }
    ids = draw.integers(5, VOCAB, starts[-1])
    return Features(
        ids.astype(np.int32), types.astype(np.int32), starts, labels[kind], np.arange(len(lengths))
    )  # fmt: skip


def task_batch(lengths: Iterable[int], kind: str = CLASSIFICATION, seed: int = 0) -> TaskBatch:
    """All of such sequences."""
    made = features(lengths, kind, seed)
    return TaskBatch.of(made, range(len(made)))


def padded(batch: TaskBatch, values_N: torch.Tensor, fill: int = 0) -> torch.Tensor:
    """Values of tokens as (B, L)."""
    return torch.nn.utils.rnn.pad_sequence(
        values_N.split(batch.cu_seqlens_B1.diff().tolist()), batch_first=True, padding_value=fill
    )


def stock(model: transformers.PreTrainedModel, kind: str, batch: TaskBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, (B, C) or (N, 2), and last hidden states (B, L, H) of the stock model on a padded batch.

    Attention is spelt out in the model's own code.
    """
    model.set_attn_implementation("eager")
    mask = padded(batch, torch.ones_like(batch.input_ids_N))
    inputs = {"input_ids": padded(batch, batch.input_ids_N, model.config.pad_token_id), "attention_mask": mask}
    if model.config.model_type in ("bert", "xlm-roberta", "albert"):  # RoBERTa has one type, the others none
        inputs["token_type_ids"] = padded(batch, batch.token_types_N)
    output = model(**inputs, output_hidden_states=True)
    if kind != SPANS:
        return output.logits, output.hidden_states[-1]
    return torch.stack((output.start_logits, output.end_logits), -1)[mask.bool()], output.hidden_states[-1]
