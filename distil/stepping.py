"""One optimiser step after the other: a step is a global batch, a pure function of its number."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Self

import torch

from distil.checkpoint.manifest import Position
from distil.data.feed import Feed
from distil.data.sampler import generator
from distil.engine.ranks import Ranks
from distil.engine.wrapped import Engine
from distil.schedule import learning_rate
from distil.workload import Workload


class Stepper:
    """Takes the steps of a workload from a position on, with micro-batches assembled ahead; a context manager.

    ``at`` is where training stands; ``moved`` is told of every micro-batch.
    """

    def __init__(
        self, work: Workload, engine: Engine, ranks: Ranks, position: Position, moved: Callable[[], None]
    ) -> None:
        self._work, self._engine, self._ranks, self._moved = work, engine, ranks, moved
        self.at = position
        self._feed = Feed(work.batch, self._numbers(), ranks.device)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._feed.close()

    @property
    def waited(self) -> float:
        """Seconds that steps have waited for a micro-batch so far."""
        return self._feed.waited

    def step(self) -> torch.Tensor:
        """Take one; returns this rank's shares of the loss terms, in the workload's order."""
        work, optimizer = self._work, self._work.optimizer
        step, ranks = self.at.step, self._ranks
        self._engine.set_lr(learning_rate(step, work.total_steps, optimizer.lr, optimizer.warmup_fraction))
        numbers = self.global_batch(self.at.micro_batch)
        terms = torch.zeros(len(work.terms), device=ranks.device)
        for place in self._places():
            number = numbers[place % len(numbers)]
            # Dropout, too, belongs to the micro-batch and not to the rank that happens to compute it.
            torch.manual_seed(int(generator("dropout", optimizer.seed, number).integers(2**63)))
            batch = next(self._feed).to(ranks.device)
            weight = 1.0 if place < len(numbers) else 0.0
            terms += self._engine.micro_step(batch, *work.given(number, numbers, step), weight=weight)
            self._moved()
        self.at = Position(step + 1, numbers.stop, self.at.tokens + work.tokens(numbers))
        return terms

    def global_batch(self, first: int) -> range:
        """Stream numbers of the global batch that begins with micro-batch ``first``."""
        return range(first, first + self._work.micro_batches)

    def _places(self) -> range:
        """This rank's places in a global batch; past its end it repeats micro-batches, to keep step with the rest."""
        return range(self._ranks.rank, self._work.accumulation * self._ranks.world, self._ranks.world)

    def _numbers(self) -> Iterator[int]:
        """Stream numbers of the micro-batches that this rank is going to need."""
        at = self.at  # where training stands now; it moves on while this is read ahead
        for step in range(self._work.stop_step - at.step):
            numbers = self.global_batch(at.micro_batch + step * self._work.micro_batches)
            yield from (numbers[place % len(numbers)] for place in self._places())
