"""What predictions are worth: fractions from 0 to 1 (correlations from -1), shown times 100.

Where a metric is not defined it is 0, as scikit-learn has it: F1 without any positive, Matthews' and the other
correlations where one side is constant (scipy says nan of those).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from distil.tasks.squad import exact_and_f1
from distil.tasks.task import REGRESSION, SPANS, Examples, Task


def accuracy(predicted_N: np.ndarray, true_N: np.ndarray) -> float:
    """Share of equal class ids."""
    return float(np.mean(predicted_N == true_N))


def f1(predicted_N: np.ndarray, true_N: np.ndarray) -> float:
    """Harmonic mean of precision and recall of class 1."""
    hits = np.sum((predicted_N == 1) & (true_N == 1))
    of_either = np.sum(predicted_N == 1) + np.sum(true_N == 1)
    return float(2 * hits / of_either) if of_either else 0.0


def matthews(predicted_N: np.ndarray, true_N: np.ndarray) -> float:
    """Matthews' correlation of two classifications, of any number of classes (Gorodkin 2004, the R_K statistic)."""
    classes = int(max(predicted_N.max(), true_N.max())) + 1
    confusion_KK = np.bincount(true_N * classes + predicted_N, minlength=classes**2).reshape(classes, classes)
    count, hits = int(confusion_KK.sum()), int(np.trace(confusion_KK))
    true_K, predicted_K = confusion_KK.sum(axis=1).tolist(), confusion_KK.sum(axis=0).tolist()  # Python's integers
    together = sum(t * p for t, p in zip(true_K, predicted_K, strict=True))
    spread = (count**2 - sum(p * p for p in predicted_K)) * (count**2 - sum(t * t for t in true_K))
    return (hits * count - together) / float(spread) ** 0.5 if spread else 0.0


def pearson(predicted_N: np.ndarray, true_N: np.ndarray) -> float:
    """Pearson's correlation."""
    x, y = (np.asarray(values, dtype=np.float64) for values in (predicted_N, true_N))
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    x, y = x - x.mean(), y - y.mean()
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    return float(np.clip(x @ y, -1.0, 1.0))


def spearman(predicted_N: np.ndarray, true_N: np.ndarray) -> float:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing the mean of theirs."""
    return pearson(_ranks(predicted_N), _ranks(true_N))


def _ranks(values_N: np.ndarray) -> np.ndarray:
    _, kinds, counts = np.unique(np.asarray(values_N, dtype=np.float64), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[kinds]


_OF_CLASSES = {"accuracy": accuracy, "f1": f1, "matthews": matthews}
_OF_VALUES = {"pearson": pearson, "spearman": spearman}


def score(task: Task, predictions: np.ndarray | Sequence[str], examples: Examples) -> dict[str, float]:
    """The task's metrics, in its order, of one prediction an example: a class id, a value, or of SPANS a text."""
    if len(predictions) != len(examples):
        raise ValueError(f"{len(predictions)} predictions for {len(examples)} examples")
    if task.kind == SPANS:
        exact, overlap = exact_and_f1(list(predictions), examples.answers, task.unanswerable)
        return {"exact_match": exact, "f1": overlap}
    table = _OF_VALUES if task.kind == REGRESSION else _OF_CLASSES
    return {name: table[name](np.asarray(predictions), examples.labels) for name in task.metrics}


def mean_percent(scores: Mapping[str, Mapping[str, float]]) -> float:
    """A task's one score: the mean over the splits of the mean of the metrics, in percent."""
    return 100 * float(np.mean([np.mean(list(of_split.values())) for of_split in scores.values()]))
