"""The ranks that train together: how they meet, agree, and learn which of them failed first."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from distil.engine.device import prepare_device  # tells DeepSpeed of the CPU before it is imported

import deepspeed  # isort: skip
from deepspeed.utils import logger  # isort: skip
from torch import Tensor

from distil.engine.meeting import choose_interface, meet
from distil.errors import LostRank, RunError, UserError, by_all, one_line

T = TypeVar("T")
# Longer than any work of rank 0 that the others wait for; a rank that has gone is the heartbeat's matter.
COLLECTIVE_SECONDS = 7200
SECONDS_TO_NAME = 15
FAULT = "fault"


@dataclass(frozen=True)
class Ranks:
    """This process among all that train together. ``control`` is a group of host memory, None for the default."""

    rank: int
    world: int
    device: torch.device
    store: dist.Store = field(repr=False)
    control: dist.ProcessGroup | None = field(default=None, repr=False)

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The values summed over all ranks, in place."""
        dist.all_reduce(values)
        return values

    def most(self, flags: Sequence[int]) -> list[int]:
        """Each flag's largest value over all ranks; waits for the ranks, never for a device."""
        if self.world == 1:
            return list(flags)
        box = torch.tensor(flags)
        dist.all_reduce(box, op=dist.ReduceOp.MAX, group=self.control)
        return box.tolist()

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in the order of ranks, on all of them."""
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self.control)
        return values

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def turns(self, count: int) -> Iterator[tuple[int, bool]]:
        """This rank's share of the numbers below ``count``, each with True; every rank gets equally many.

        Past the end one comes again, with False: under ZeRO-3 all ranks must run equally often.
        """
        for i in range(self.rank, -(-count // self.world) * self.world, self.world):
            yield i % count, i < count

    def wait(self) -> None:
        """Until every rank is here."""
        self.most([0])

    def first_does(self, work: Callable[[], T]) -> T:
        """The result of work that rank 0 alone does, on every rank; a user's mistake in it is raised on every rank."""
        result, error = _attempt(work) if self.first else (None, None)
        result, error = self.share((result, error))
        return _settled(result, error)

    def all_do(self, work: Callable[[], T]) -> T:
        """The result of work that every rank does; the first mistake of a user in it is raised on every rank."""
        result, error = _attempt(work)
        return _settled(result, next((e for e in self.gather(error) if e is not None), None))

    def cause_of(self, error: Exception) -> UserError | None:
        """What ended this rank, if that lies elsewhere: the fault that another rank told first, or a lost connection.

        Where this rank is the first to fail, its error is noted for the others, and None is returned.
        """
        lost = isinstance(error, RuntimeError) and any(sign in str(error) for sign in LOST_CONNECTION)
        code = error.code if isinstance(error, UserError) else RunError.code
        mine = json.dumps([self.rank, code, f"{type(error).__name__}: {one_line(error)[:500]}"])
        try:
            if lost:
                return self._told_fault(error)
            told = self.store.compare_set(FAULT, "", mine).decode()
        except RuntimeError:  # the store lives in rank 0
            return LostRank("rank 0 has gone; the same command resumes") if lost else None
        return None if told == mine else _lost(*json.loads(told))

    def _told_fault(self, error: Exception) -> LostRank:
        for _ in range(30):
            if self.store.check([FAULT]):
                return _lost(*json.loads(self.store.get(FAULT).decode()))
            time.sleep(0.1)
        # Nobody has told anything: killed, or its host is gone. The heartbeat is about to find out who.
        time.sleep(SECONDS_TO_NAME)
        return LostRank(f"another rank has gone without a word ({one_line(error)[:200]}); the same command resumes")


# As gloo, NCCL and torch's store word it.
LOST_CONNECTION = (
    "Connection closed by peer",
    "Connection reset",
    "Broken pipe",
    "connection was aborted",
    "recvValue",
    "ncclRemoteError",
    "remote process exited",
)


def _lost(rank: int, code: int, message: str) -> LostRank:
    return LostRank(f"rank {rank} failed first: {message}", code)


def _attempt(work: Callable[[], T]) -> tuple[T | None, UserError | None]:
    try:
        return work(), None
    except UserError as mistake:
        return None, mistake


def _settled(result: T, error: UserError | None) -> T:
    if error is not None:
        raise by_all(error)
    return result


def start_ranks() -> Ranks:
    """Join the ranks the launcher started; without a launcher this process is the only one.

    Raises RunError where they cannot meet.
    """
    if "RANK" not in os.environ:  # some of DeepSpeed reads them
        os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    ranks_here = int(os.environ.get("LOCAL_SIZE", world))  # LOCAL_SIZE: DeepSpeed's launcher
    device, backend = prepare_device(ranks_here, int(os.environ["LOCAL_RANK"]))
    store = dist.HashStore() if world == 1 else meet(rank, world)
    choose_interface(os.environ["MASTER_ADDR"])
    limit = timedelta(seconds=COLLECTIVE_SECONDS)
    logger.setLevel("WARNING")
    # DeepSpeed calls collectives by names that torch is about to drop; users cannot do anything about it.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed")
    dist.init_process_group(backend, store=dist.PrefixStore("ranks", store), rank=rank, world_size=world, timeout=limit)
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    control = None if backend == "gloo" else dist.new_group(backend="gloo", timeout=limit)
    return Ranks(rank, world, device, store, control)


def stop_ranks() -> None:
    """Leave the ranks; without it about one CPU run in twenty aborts after it has finished."""
    if dist.is_initialized():
        dist.destroy_process_group()
