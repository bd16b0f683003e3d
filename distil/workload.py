"""What a trainer trains on: an endless stream of micro-batches, by number, and what is to be seen of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from distil.data.batch import TensorBatch
from distil.engine.ranks import Ranks
from distil.engine.wrapped import Engine
from distil.tables import Optimizer, Run


class Workload(Protocol):
    """The same on every rank.

    ``run`` and ``optimizer`` say how it is reported and optimised; ``total_steps`` is the length of the schedule,
    ``stop_step`` where this run ends. A step is a global batch of ``micro_batches``, of which each rank takes
    ``accumulation``. ``terms`` are the parts of the loss that the wrapped module returns, in order. It is evaluated at
    the end, every ``run.eval_every`` steps, and before the first one where the model is ``judged_untrained``.
    """

    run: Run
    optimizer: Optimizer
    total_steps: int
    stop_step: int
    micro_batches: int
    accumulation: int
    terms: tuple[str, ...]
    judged_untrained: bool

    def batch(self, number: int) -> TensorBatch:
        """The micro-batch of this number in the stream; a pure function."""

    def tokens(self, numbers: range) -> int:
        """Tokens in these micro-batches, known before any is assembled."""

    def given(self, number: int, numbers: range, step: int) -> tuple[Any, ...]:
        """What the module gets beside micro-batch ``number`` of the global batch ``numbers`` in a step, from 0."""

    def weights(self, step: int) -> dict[str, float]:
        """Weights of the terms that are part of the loss in a step, counted from 0."""

    def curves(self, raw: dict[str, float], numbers: range, step: int) -> dict[str, float]:
        """Scalars of a step, by tag, beyond those that every training has; ``raw`` has all terms unweighted."""

    def evaluate(self, engine: Engine, ranks: Ranks, moved: Callable[[], None]) -> dict[str, float]:
        """Figures of the model as it stands, by tag. All ranks call it, and ``moved``, which may raise, every batch."""
