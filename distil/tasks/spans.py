"""The answers that a model's start and end logits say, by the rules of BERT's own code (Devlin et al. 2019).

Except one: there a span counts only in the window that shows most of the context around its first token.
"""

from __future__ import annotations

import numpy as np

from distil.tasks.batch import Features
from distil.tasks.task import Examples

BEST = 20  # starts, and ends, of a window that may make an answer
LONGEST = 30  # tokens of an answer


def answers(
    features: Features,
    examples: Examples,
    start_logits_T: np.ndarray,
    end_logits_T: np.ndarray,
    unanswerable: bool = False,
) -> list[str]:
    """A text for each example, out of its context; "" where there is no answer.

    Logits are of all T tokens, in the order of ``features.input_ids``. A span begins at one of the BEST starts of its
    window and ends at one of the BEST ends, both in the context, and has LONGEST tokens at most; the best of an
    example has the largest sum of both logits over all its windows, of equal ones the first. If ``unanswerable`` that
    sum must reach the smallest over the windows of the first token's two logits.
    """
    scores_T, ends_T = _best_from(features, start_logits_T, end_logits_T)
    count, firsts = len(examples), features.starts[:-1]
    window_T = np.repeat(np.arange(len(features)), features.lengths)
    example_T = features.examples[window_T]
    best = np.full(count, -np.inf)
    np.maximum.at(best, example_T, scores_T)
    hits = np.flatnonzero(np.isfinite(scores_T) & (scores_T == best[example_T]))
    places = np.full(count, -1)
    places[example_T[hits][::-1]] = hits[::-1]  # of equal ones the last to be written is the first
    none = np.full(count, np.inf)
    np.fmin.at(none, features.examples, _sum(start_logits_T[firsts], end_logits_T[firsts]))
    found = []
    for i, place in enumerate(places):
        if place < 0 or (unanswerable and none[i] > best[i]):
            found.append("")
        else:
            begin, end = features.offsets[place, 0], features.offsets[ends_T[place], 1]
            found.append(examples.texts[1][i][begin:end].strip())
    return found


def _best_from(features: Features, starts_T: np.ndarray, ends_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each token the score of the best span that begins there, -inf without any, and the token where it ends."""
    inside_T = features.offsets[:, 0] >= 0
    window_T = np.repeat(np.arange(len(features)), features.lengths)
    start_T = np.where(inside_T & _among_best(features, starts_T), starts_T.astype(np.float64), -np.inf)
    end_T = np.where(inside_T & _among_best(features, ends_T), ends_T.astype(np.float64), -np.inf)
    scores_T, places_T = np.full(len(start_T), -np.inf), np.arange(len(start_T))
    for tokens in range(LONGEST):
        last = len(start_T) - tokens
        if last <= 0:
            break
        sums = np.where(window_T[:last] == window_T[tokens:], start_T[:last] + end_T[tokens:], -np.inf)
        better = np.flatnonzero(sums > scores_T[:last])
        scores_T[better], places_T[better] = sums[better], better + tokens
    return scores_T, places_T


def _among_best(features: Features, logits_T: np.ndarray) -> np.ndarray:
    """Whether a token's logit is one of the BEST largest of its window, all that equal the last of them included."""
    chosen_T = np.ones(len(logits_T), dtype=bool)
    for start, stop in zip(features.starts[:-1], features.starts[1:], strict=True):
        if stop - start > BEST:
            of_window = logits_T[start:stop]
            chosen_T[start:stop] = of_window >= np.partition(of_window, -BEST)[-BEST]
    return chosen_T


def _sum(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    return start.astype(np.float64) + end
