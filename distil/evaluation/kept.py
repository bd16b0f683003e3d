"""What a form of a model keeps: whether it says what the original says, and how often that is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from distil.evaluation.examples import Example, Inputs
from distil.kernels import IGNORED

Said = np.ndarray | int | float  # of one sequence


def read(kind: str, logits: Tensor, inputs: Inputs) -> list[Said]:
    """What a model says of each sequence of a batch.

    ``kind`` "mlm" or "clm": the likeliest id at each token; "classes": the likeliest class; "value": a number;
    "spans": the likeliest first and last place of an answer, each for itself.
    """
    real_BL = inputs["attention_mask"].bool()
    if kind in ("mlm", "clm"):
        best_BL = logits.argmax(-1)
        return [best_L[real_L].numpy() for best_L, real_L in zip(best_BL, real_BL, strict=True)]
    if kind == "spans":
        return list(logits.masked_fill(~real_BL[:, :, None], float("-inf")).argmax(1).numpy())
    return logits[:, 0].tolist() if kind == "value" else logits.argmax(-1).tolist()


def alike(kind: str, said: Sequence[Said], original: Sequence[Said]) -> float:
    """Share of what is said alike: tokens, classes, answers whose ends are both the same; of values Pearson's r."""
    if kind == "value":
        return pearson(said, original)
    if kind in ("mlm", "clm"):
        said, original = np.concatenate(said), np.concatenate(original)
    return _share(np.array(said), np.array(original))


def right(kind: str, said: Sequence[Said], examples: Sequence[Example]) -> float | None:
    """The same against the labels, where all examples have one; of tokens those that are asked for. None without."""
    labels = [example.label for example in examples]
    if None in labels:
        return None
    if kind == "value":
        return pearson(said, labels)
    if kind in ("mlm", "clm"):
        all_said, all_labels = np.concatenate(said), np.concatenate(labels)
        asked = all_labels != IGNORED
        return _share(all_said[asked], all_labels[asked]) if asked.any() else None
    return _share(np.array(said), np.array(labels))


def _share(a: np.ndarray, b: np.ndarray) -> float:
    same = a == b
    return float((same.all(1) if same.ndim == 2 else same).mean())


def pearson(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Correlation of values; None where one of them does not vary."""
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if len(a) < 2 or a.std() == 0 or b.std() == 0:
        return None
    return float(np.corrcoef(a, b)[0, 1])
