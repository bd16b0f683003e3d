"""Several stores read as one stream of micro-batches, each store in its share, by arithmetic on the number alone."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal
from fractions import Fraction

import numpy as np

from distil.data.sampler import Plan
from distil.data.store import Store
from distil.errors import DataError


def powers(sizes: Sequence[int], exponent: float) -> list[Fraction]:
    """``size ** exponent`` of each size: exact for an exponent of 1, else to nine digits, the same on any machine.

    Taken as shares this is the exponentially smoothed weighting of multilingual BERT, which has an exponent of 0.7
    (multilingual.md of github.com/google-research/bert), and of XLM (arXiv 1901.07291, section 3).
    """
    if exponent == 1:
        return [Fraction(size) for size in sizes]
    # Not by floats: pow of two C libraries may differ in its last bit, and every micro-batch hangs on the shares.
    nine_digits = Context(prec=9)
    return [Fraction(nine_digits.power(size, Decimal(str(exponent)))) for size in sizes]


class Mixture:
    """A stream whose every micro-batch comes from one of the ``stores``, in proportion to their weights.

    Without weights a store's share is in proportion to its size in micro-batches, to the power of ``exponent``. Where
    that is 1, an epoch of the mixture is one of each store. Otherwise a store goes through its own epochs at its own
    pace, and an epoch of the mixture is as many micro-batches as all stores have.
    All stores must be of one tokenizer. Raises DataError where a sequence exceeds the token budget.
    """

    def __init__(
        self,
        stores: Sequence[Store],
        weights: Sequence[float] | None,
        budget_tokens: int,
        seed: int,
        exponent: float = 1.0,
    ) -> None:
        self.stores = tuple(stores)
        self.plans = tuple(Plan(store.lengths, budget_tokens, seed, stream) for stream, store in enumerate(stores))
        self.micro_batches = sum(plan.micro_batches for plan in self.plans)
        if weights is None:
            parts = powers([plan.micro_batches for plan in self.plans], exponent)
        else:
            parts = [Fraction(str(weight)) for weight in weights]  # as written: 0.1 is a tenth
        self.shares = tuple(part / sum(parts) for part in parts)
        # The share of each store in what the stores before it have left.
        self._of_rest = [share / sum(self.shares[i:]) for i, share in enumerate(self.shares)]

    @property
    def fingerprint(self) -> list[str]:
        """What identifies the text: of each store 16 hex digits and, where it is one of several, its exact share."""
        return [
            store.fingerprint + (f" x {share}" if len(self.stores) > 1 else "")
            for store, share in zip(self.stores, self.shares, strict=True)
        ]

    @property
    def tokens_an_epoch(self) -> float:
        """Tokens that an epoch of the mixture sees."""
        each = zip(self.shares, self.plans, strict=True)
        return sum(float(self.micro_batches * share / plan.micro_batches) * plan.lengths.tokens for share, plan in each)

    @property
    def token_counts(self) -> np.ndarray:
        """How often an epoch of the mixture sees each id, float (V,)."""
        passes = [float(self.micro_batches * s / p.micro_batches) for s, p in zip(self.shares, self.plans, strict=True)]
        return sum(n * store.token_counts.astype(np.float64) for n, store in zip(passes, self.stores, strict=True))

    def locate(self, number: int) -> tuple[int, int]:
        """(store, number in that store's own stream) of a stream number; exact, and the same for any order of asking.

        The first store takes floor(n p) of the first n numbers, p its share, and leaves the rest to the others, which
        share it among themselves in the same way.
        """
        for store, share in enumerate(self._of_rest):
            taken = number * share.numerator // share.denominator
            if (number + 1) * share.numerator // share.denominator > taken:
                return store, taken
            number -= taken
        raise AssertionError("the last store takes whatever is left")

    def tokens(self, number: int) -> int:
        """Tokens of the micro-batch with this stream number, known without a look at the stores."""
        store, own = self.locate(number)
        return self.plans[store].tokens(own)

    def sequences(self, number: int) -> int:
        """How many sequences that micro-batch has."""
        store, own = self.locate(number)
        return len(self.plans[store].places(own))

    def gather(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Its sequences back to back: ids int64 (N,) and lengths int32 (B,). Raises DataError for a damaged store."""
        index, own = self.locate(number)
        store, plan = self.stores[index], self.plans[index]
        ids_N, lengths_B = store.gather(store.at(plan.places(own)))
        if ids_N.size != plan.tokens(own):
            raise DataError(
                f"{store.prefix}: damaged: sizes in .idx or order in .order are not what .json says; rebuild the store"
            )
        return ids_N, lengths_B
