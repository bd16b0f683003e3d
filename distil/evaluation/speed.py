"""How long models take: for one sequence, for a set at batch 1, for many at once; several by turns."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

import numpy as np
import torch
import transformers
from torch import Tensor
from tqdm import tqdm

from distil.evaluation.examples import Example, Inputs, batches
from distil.models.families import family_of

WARM_UP = 3
SEQUENCES = 20
TOKENS = 128
ROUNDS = 10
FOR_THROUGHPUT = 128  # sequences of each batch size, all sizes the same; of a smaller set some come again
LEAST_BATCHES = 4  # timed of each size, the same ones again where there are fewer

Runner = Callable[[Inputs], Tensor]
Key = TypeVar("Key")  # by which a runner is known


def milliseconds_a_sequence(model: transformers.PreTrainedModel) -> float:
    """Median milliseconds for one sequence of 128 tokens at batch 1, logits included, with stock attention."""
    model.set_attn_implementation("sdpa")
    device = next(model.parameters()).device
    tokens = min(TOKENS, family_of(model.config).longest(model.config))
    ids = torch.randint(model.config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(0)).to(device)
    seconds = []
    with torch.no_grad():
        for _ in range(WARM_UP + SEQUENCES):
            start = time.perf_counter()
            model(ids).logits[0, 0, 0].item()  # waits for the device
            seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[WARM_UP:])


def take_turns(
    runners: Mapping[Key, Runner], work: Mapping[Key, Sequence[Inputs]], rounds: int = ROUNDS, warm_up: int = WARM_UP,
    watch: Callable[[Key, Inputs, Tensor], None] | None = None, title: str = "",
) -> dict[Key, list[float]]:  # fmt: skip
    """Seconds of each batch of each runner's work, in order.

    All work is cut into ``rounds`` parts, fewer where there are fewer batches. Each runner does a part before any does
    the next, forwards and backwards in alternation, so that what slows the machine for a while hits all alike. Before
    its part a runner does its first batch ``warm_up`` times unseen. ``watch`` sees each output, beside the clock.
    """
    seconds: dict[Key, list[float]] = {name: [] for name in runners}
    bar = tqdm(total=sum(map(len, work.values())), desc=title, unit="batch", disable=None, leave=False)
    rounds = min(rounds, *map(len, work.values()))
    parts = {name: np.array_split(np.arange(len(own)), rounds) for name, own in work.items()}
    for number in range(rounds):
        for name in list(runners) if number % 2 == 0 else reversed(list(runners)):
            run, own, part = runners[name], work[name], parts[name][number]
            for _ in range(warm_up):
                run(own[part[0]])
            for i in part:
                start = time.perf_counter()
                output = run(own[i])
                seconds[name].append(time.perf_counter() - start)
                if watch is not None:
                    watch(name, own[i], output)
                bar.update()
    bar.close()
    return seconds


def throughput(
    runners: Mapping[Key, Runner], sets: Mapping[Key, tuple[Sequence[Example], int]], sizes: Sequence[int]
) -> dict[Key, dict[int, float]]:
    """{runner: {batch size: sequences a second}}, by turns; ``sets`` has each runner's examples and pad id.

    Sequences are the first FOR_THROUGHPUT of the set, or as many as a larger batch has, and of a smaller set its first
    ones again. They are sorted by length, so that little of a batch is padding.
    """
    found: dict[Key, dict[int, float]] = {name: {} for name in runners}
    for size in sizes:
        count = max(size, FOR_THROUGHPUT // size * size)
        work = {}
        for name, (examples, pad_id) in sets.items():
            taken = sorted(itertools.islice(itertools.cycle(examples), count), key=lambda example: len(example.ids))
            once = batches(taken, size, pad_id)
            work[name] = once * math.ceil(LEAST_BATCHES / len(once))
        times = math.ceil(LEAST_BATCHES * size / count)
        for name, seconds in take_turns(runners, work, rounds=2, warm_up=1, title=f"batches of {size}").items():
            found[name][size] = times * count / sum(seconds)
    return found


@dataclass(frozen=True)
class Latency:
    """Of sequences at batch 1: seconds for all, and milliseconds within which half, 90 % and 99 % of them are done."""

    seconds: float
    p50: float
    p90: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Self:
        """From the seconds of each; percentiles between two of them are interpolated."""
        return cls(sum(seconds), *(1000 * np.percentile(seconds, (50, 90, 99))).tolist())
