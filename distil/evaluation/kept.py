"""What a form of a model keeps: what is said of each sequence, and whether it is what the original says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from distil.evaluation.examples import Inputs, Said
from distil.tasks.metrics import pearson
from distil.tasks.task import CLASSIFICATION, REGRESSION, SPANS

MLM, CLM = "mlm", "clm"
# How agreement is to be read, by kind.
ALIKE = {
    MLM: "of all tokens those for which a form's likeliest id is that of fp32",
    CLM: "of all tokens those after which a form's likeliest id is that of fp32",
    CLASSIFICATION: "of all sequences those that a form gives the same class as fp32",
    REGRESSION: "Pearson's correlation of a form's values with those of fp32",
    SPANS: "of all sequences those for which both likeliest ends of an answer are those of fp32",
}


def read(kind: str, logits: Tensor, inputs: Inputs) -> list[Said]:
    """What a model says of each sequence of a batch: of a language model the likeliest id at each token, else logits.

    Padding says nothing.
    """
    logits = logits.argmax(-1) if kind in (MLM, CLM) else logits
    if kind in (CLASSIFICATION, REGRESSION):
        return list(logits.numpy())
    lengths = inputs["attention_mask"].sum(1).tolist()
    # A copy, so that the batch's padding need not be kept.
    return [row[:length].numpy().copy() for row, length in zip(logits, lengths, strict=True)]


def alike(kind: str, said: Sequence[Said], original: Sequence[Said]) -> float:
    """How much of what is said is what the original says, as ALIKE has it in words."""
    if kind == REGRESSION:
        return pearson(np.concatenate(said), np.concatenate(original))
    if kind in (MLM, CLM):
        return float((np.concatenate(said) == np.concatenate(original)).mean())
    pairs = zip(said, original, strict=True)
    return float(np.mean([(a.argmax(0) == b.argmax(0)).all() for a, b in pairs]))
