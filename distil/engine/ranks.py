"""The ranks that train together: how they meet, agree, and learn which of them failed first."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from distil.engine.device import prepare_device  # tells DeepSpeed of the CPU before it is imported

import deepspeed  # isort: skip
from deepspeed.utils import logger  # isort: skip
from torch import Tensor

from distil.errors import LostRank, RunError, UserError, by_all, one_line

T = TypeVar("T")
# Ranks of a large cluster start minutes apart where they read the software over a network.
MEET_SECONDS = 600
# A host that does not answer at all is another matter: told within the minute.
REACH_SECONDS = 45
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
        lost = any(sign in str(error) for sign in LOST_CONNECTION)
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
    store = dist.HashStore() if world == 1 else _meet(rank, world)
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


def _meet(rank: int, world: int) -> dist.TCPStore:
    """The store through which ranks find each other, served by rank 0, once all have come."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    serves = rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    if not serves:
        _reach(host, port)
    try:
        store = dist.TCPStore(
            host, port, world, is_master=serves, timeout=timedelta(seconds=MEET_SECONDS), wait_for_workers=False
        )
    except (RuntimeError, ValueError) as error:
        if serves and ("EADDRINUSE" in str(error) or "in use" in str(error)):
            raise RunError(
                f"port {port} of {host} is taken; give another: deepspeed --master_port {_free_port()} ..."
            ) from error
        raise RunError(f"rank {rank} cannot meet the others at {host}:{port}: {one_line(error)[:300]}") from error
    store.set(f"here/{rank}", socket.gethostname())
    if rank == 0:
        _await_all(store, world)
        store.set("all here", "")
    try:
        store.wait(["all here"], timedelta(seconds=MEET_SECONDS + 30))
    except RuntimeError as error:
        raise RunError(f"rank {rank} waited in vain for all ranks at {host}:{port}") from error
    return store


def _await_all(store: dist.TCPStore, world: int) -> None:
    began, told = time.monotonic(), False
    while missing := [r for r in range(world) if not store.check([f"here/{r}"])]:
        waited = time.monotonic() - began
        names = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        if waited > MEET_SECONDS:
            raise RunError(f"of {world} ranks {len(missing)} have not come in {waited:.0f} s: {names}; see their hosts")
        if waited > 30 and not told:
            told = True
            print(f"waiting for rank(s) {names} of {world}", flush=True)
        time.sleep(0.05)


def _reach(host: str, port: int) -> None:
    """Return once somebody listens there. Raises RunError for a host that does not answer, or never listens."""
    began = time.monotonic()
    while True:
        try:
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            waited = time.monotonic() - began
            listens_later = error.errno == errno.ECONNREFUSED
            if waited > (MEET_SECONDS if listens_later else REACH_SECONDS):
                what = "nobody listens on" if listens_later else "cannot be reached at"
                raise RunError(
                    f"rank 0: {what} {host}:{port} ({error}) for {waited:.0f} s; see --master_addr, --master_port, "
                    "firewalls, and the output of rank 0's host"
                ) from error
            time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
