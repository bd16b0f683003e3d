"""Heads of tasks as data, and how a model with one runs on packed sequences.

A family's models for a kind of task differ from its language models in their class and their head alone, so they are a
``Family`` with these replaced: what holds for families, from packed attention to export, holds for them.

Shapes: N packed tokens of B sequences, L the longest, H hidden, C outputs of the head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from distil.models.families import FAMILIES
from distil.models.family import Family
from distil.models.packed import Padding, packed_inputs
from distil.tasks.batch import TaskBatch
from distil.tasks.task import SPANS

Step = str | Callable[[Tensor], Tensor]
HEAD = "head."  # common names of a head's parts begin so

# By family: class and steps of its head over a sequence, and over each token. The last step is the decoder. A BERT's
# pooler is called twice: the encoder pools the first token of the whole row, which nothing uses.
_OF_SEQUENCES: dict[str, tuple[type[transformers.PreTrainedModel], tuple[Step, ...]]] = {
    "bert": (
        transformers.BertForSequenceClassification,
        ("bert.pooler.dense", torch.tanh, "dropout", "classifier"),
    ),
    "distilbert": (
        transformers.DistilBertForSequenceClassification,
        ("pre_classifier", F.relu, "dropout", "classifier"),
    ),
    "roberta": (
        transformers.RobertaForSequenceClassification,
        ("classifier.dropout", "classifier.dense", torch.tanh, "classifier.dropout", "classifier.out_proj"),
    ),
    "xlm-roberta": (
        transformers.XLMRobertaForSequenceClassification,
        ("classifier.dropout", "classifier.dense", torch.tanh, "classifier.dropout", "classifier.out_proj"),
    ),
    "albert": (
        transformers.AlbertForSequenceClassification,
        ("albert.pooler", torch.tanh, "dropout", "classifier"),
    ),
    "modernbert": (transformers.ModernBertForSequenceClassification, ("head", "drop", "classifier")),
    "gpt2": (transformers.GPT2ForSequenceClassification, ("score",)),
}
_OF_TOKENS: dict[str, tuple[type[transformers.PreTrainedModel], tuple[Step, ...]]] = {
    "bert": (transformers.BertForQuestionAnswering, ("qa_outputs",)),
    "distilbert": (transformers.DistilBertForQuestionAnswering, ("dropout", "qa_outputs")),
    "roberta": (transformers.RobertaForQuestionAnswering, ("qa_outputs",)),
    "xlm-roberta": (transformers.XLMRobertaForQuestionAnswering, ("qa_outputs",)),
    "albert": (transformers.AlbertForQuestionAnswering, ("qa_outputs",)),
    "modernbert": (transformers.ModernBertForQuestionAnswering, ("head", "drop", "classifier")),
    "gpt2": (transformers.GPT2ForQuestionAnswering, ("qa_outputs",)),
}
assert _OF_SEQUENCES.keys() == _OF_TOKENS.keys() == FAMILIES.keys()


@cache
def _by_name(name: str, spans: bool) -> Family:
    family = FAMILIES[name]
    model_class, (*transform, decoder) = (_OF_TOKENS if spans else _OF_SEQUENCES)[name]
    parts = {name: path for name, path in family.modules.items() if not name.startswith(HEAD)}
    parts |= {HEAD + step: step for step in (*transform, decoder) if isinstance(step, str) and not _is_dropout(step)}
    return replace(family, model_class=model_class, head_transform=tuple(transform), decoder=decoder, modules=parts)


def task_family(family: Family, kind: str) -> Family:
    """The family of models for tasks of ``kind`` whose encoders are those of ``family``.

    Its ``head`` takes the rows of ``pooled``, of SPANS all rows, to the task's outputs.
    """
    return _by_name(family.name, kind == SPANS)


def same_head(one: Family, other: Family) -> bool:
    """Whether two heads compute the same with the same weights, dropout aside."""
    steps = ([step for step in (*f.head_transform, f.decoder) if not _is_dropout(step)] for f in (one, other))
    return next(steps) == next(steps)


def _is_dropout(step: Step) -> bool:
    return isinstance(step, str) and step.rpartition(".")[2].startswith("drop")


def task_inputs(batch: TaskBatch) -> dict[str, object]:
    """What ``run`` needs of a batch; share it between models."""
    return packed_inputs(batch) | {"token_type_ids": batch.token_types_N.unsqueeze(0)}


def run(model: nn.Module, family: Family, kind: str, inputs: dict[str, object]) -> tuple[Tensor, Tensor]:
    """Logits in fp32 (fp64 of fp64), (B, C), of SPANS (N, 2); and the last hidden states that are ``pooled``, (B, H).

    ``family`` is that of ``task_family``, ``inputs`` those of ``task_inputs``. Token types are for encoders that tell
    several apart.
    """
    types = family.config.get("token_types")
    if types is None or getattr(model.config, types) < 2:
        inputs = {name: value for name, value in inputs.items() if name != "token_type_ids"}
    hidden_NH = family.hidden(model, **inputs)
    rows_BH = pooled(hidden_NH, family, model.config, inputs)
    return family.head(model).logits(hidden_NH if kind == SPANS else rows_BH), rows_BH


def pooled(
    hidden_NH: Tensor, family: Family, config: transformers.PreTrainedConfig, inputs: dict[str, object]
) -> Tensor:
    """The row of each sequence that stands for it, (B, H).

    That of its first token; of a causal model, which has seen all there, of its last token that is no padding; where
    the config's ``classifier_pooling`` is "mean", the mean of all.
    """
    padding: Padding = inputs["padding"]
    starts_B = padding.cu_seqlens_B1[:-1].long()
    if family.causal:
        return hidden_NH[starts_B + _last_places(padding, inputs, config.pad_token_id)]
    if getattr(config, "classifier_pooling", "cls") == "mean":
        lengths_B = padding.cu_seqlens_B1.diff()
        return padding.pad(hidden_NH[None, None]).squeeze(1).sum(1) / lengths_B[:, None]
    return hidden_NH[starts_B]


def _last_places(padding: Padding, inputs: dict[str, object], pad_id: int | None) -> Tensor:
    """Place within each sequence of its last token that is not ``pad_id``, (B,): as the stock models find it."""
    if pad_id is None:
        return padding.cu_seqlens_B1.diff().long() - 1
    ids_N, places_N = inputs["input_ids"].squeeze(0), inputs["position_ids"].squeeze(0)
    last_B = places_N.new_zeros(padding.rows)
    return last_B.scatter_reduce(0, padding.slot_N // padding.longest, places_N * (ids_N != pad_id), "amax")
