"""Batches assembled ahead of the step that needs them, by a thread beside it.

A thread is enough: what takes time in numpy and torch leaves the interpreter free, and one core assembles several
times what eight V100 train on (``benchmarks/data.py``). A batch is a function of its number, so it is the same
whoever makes it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Self

import torch

from distil.data.batch import TensorBatch

AHEAD = 8  # micro-batches ready: more than a step's jitter needs, some megabytes


class Feed:
    """Iterates over ``make(number)`` for each of the numbers, up to AHEAD of them in advance.

    For a CUDA device batches lie in pinned memory. An error in ``make`` is raised by the ``next`` that would have given
    its batch. ``waited`` are the seconds that callers have spent waiting. Close it, or use it as a context manager.
    """

    def __init__(self, make: Callable[[int], TensorBatch], numbers: Iterable[int], device: torch.device) -> None:
        self.waited = 0.0
        self._make = (lambda number: make(number).pinned()) if device.type == "cuda" else make
        self._numbers: Iterator[int] = iter(numbers)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="feed")
        self._ahead: deque[Future[TensorBatch]] = deque()
        self._order(AHEAD)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TensorBatch:
        if not self._ahead:
            raise StopIteration
        began = time.perf_counter()
        batch = self._ahead.popleft().result()
        self.waited += time.perf_counter() - began
        self._order(1)
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop assembling; what is ready is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _order(self, count: int) -> None:
        self._ahead.extend(self._pool.submit(self._make, number) for number in islice(self._numbers, count))
