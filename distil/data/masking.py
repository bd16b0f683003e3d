"""What a language model must predict of a micro-batch, and what it sees in its place.

A causal model predicts the next token of every one, and sees them all. For a masked one the published recipe
(arXiv 1910.01108 and its training code): ceil(0.15 x real tokens) of a micro-batch are drawn without replacement with
probability proportional to max(count, 1)^-0.7, where count is the token's frequency in the corpus (XLM's smoothing,
arXiv 1901.07291, section 3.1), special tokens never; of those 80 % become the mask token, 10 % stay, 10 % become a
random id. Masks are drawn anew each time a sequence is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from distil.errors import DataError
from distil.kernels import IGNORED
from distil.shares import ceil_share


class Objective(Protocol):
    """What is to be predicted, as a pure function of the tokens and a generator's state."""

    def targets(
        self, ids_N: np.ndarray, lengths_B: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and labels, int64 (N,), of packed sequences; labels are -100 where nothing is predicted."""

    def count(self, tokens: int, sequences: int) -> int:
        """How many labels a micro-batch of so many tokens in so many sequences has."""


class NextToken:
    """A causal model's: the label of each token is the one that follows it in its sequence; the last has none."""

    def targets(
        self, ids_N: np.ndarray, lengths_B: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """As ``Objective`` says; nothing is drawn."""
        inputs_N = ids_N.astype(np.int64)
        labels_N = np.append(inputs_N[1:], IGNORED)
        labels_N[np.cumsum(lengths_B) - 1] = IGNORED
        return inputs_N, labels_N

    def count(self, tokens: int, sequences: int) -> int:
        """All but each sequence's last."""
        return tokens - sequences


@dataclass(frozen=True)
class Masker:
    """Draws masks for a vocabulary of V ids; ``weights_V`` is each id's weight in the draw, 0 for never."""

    weights_V: np.ndarray
    mask_id: int
    fraction: float
    mask_share: float
    keep_share: float

    @classmethod
    def from_counts(
        cls, counts_V: np.ndarray, special_ids: dict[str, int], *, fraction: float, smoothing: float,
        mask_share: float, keep_share: float,
    ) -> Masker:  # fmt: skip
        """A masker for a corpus with the given token counts, shape (V,). Raises DataError without a mask token."""
        if "mask" not in special_ids:
            raise DataError(
                "the store's tokenizer has no mask token, which a masked model learns from: binarize with that of the "
                "model that is trained"
            )
        weights_V = np.maximum(counts_V, 1).astype(np.float64) ** -smoothing
        weights_V[list(special_ids.values())] = 0.0
        return cls(weights_V, special_ids["mask"], fraction, mask_share, keep_share)

    def targets(
        self, ids_N: np.ndarray, lengths_B: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """As ``Objective`` says; where a sequence ends does not matter."""
        return self.mask(ids_N, rng)

    def count(self, tokens: int, sequences: int) -> int:
        """The fraction of the tokens, rounded up."""
        return ceil_share(tokens, self.fraction)

    def mask(self, ids_N: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and labels, int64 (N,), for the real tokens of a micro-batch; labels are -100 where not predicted.

        A pure function of the ids and the generator's state.
        """
        count = self.count(len(ids_N), 0)
        weights_N = self.weights_V[ids_N]
        if np.count_nonzero(weights_N) < count:
            raise DataError(
                f"{count} of {len(ids_N)} tokens are to be masked but only {np.count_nonzero(weights_N)} are ordinary"
            )
        # Exponential race: the k smallest of E_i / w_i are a draw without replacement in proportion to w
        # (Efraimidis and Spirakis 2006), in one pass where repeated draws would take k.
        with np.errstate(divide="ignore"):
            race_N = rng.standard_exponential(len(ids_N)) / weights_N
        target_M = np.sort(np.argpartition(race_N, count - 1)[:count])
        inputs_N = ids_N.astype(np.int64)
        labels_N = np.full(len(ids_N), IGNORED, dtype=np.int64)
        labels_N[target_M] = inputs_N[target_M]
        fate_M = rng.random(count)
        inputs_N[target_M[fate_M < self.mask_share]] = self.mask_id
        random_M = target_M[fate_M >= self.mask_share + self.keep_share]
        inputs_N[random_M] = rng.integers(len(self.weights_V), size=len(random_M))
        return inputs_N, labels_N
