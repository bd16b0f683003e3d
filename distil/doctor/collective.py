"""One rank of an all-reduce that is timed: python -m distil.doctor.collective RANK RANKS WHERE nccl|gloo

WHERE is how ranks meet, as torch's init_method. Rank 0 prints the seconds that one all-reduce takes.
"""

from __future__ import annotations

import datetime
import os
import signal
import sys
import threading
import time

import torch
import torch.distributed as dist

MIB = 64
ROUNDS = 3
SECONDS = 60  # after which a rank ends, whatever it waits for: nobody else may be there to end it
PATIENCE = datetime.timedelta(seconds=30)


def seconds(rank: int, ranks: int, where: str, backend: str) -> float:
    """Join the others and time the all-reduce; raises RuntimeError where the sum is wrong."""
    dist.init_process_group(backend, init_method=where, rank=rank, world_size=ranks, timeout=PATIENCE)
    device = torch.device("cuda", rank % torch.cuda.device_count()) if backend == "nccl" else torch.device("cpu")
    values = torch.ones(MIB * 2**18, device=device)
    began = 0.0
    for attempt in range(ROUNDS + 1):
        dist.all_reduce(values)
        if attempt == 0:  # the first one sets up connections
            float(values[0])
            began = time.perf_counter()
    float(values[0])  # waits for a GPU
    taken = (time.perf_counter() - began) / ROUNDS
    wrong = bool((values != float(ranks ** (ROUNDS + 1))).any())
    dist.destroy_process_group()
    if wrong:
        raise RuntimeError("the sum over the ranks is wrong")
    return taken


def _give_up() -> None:
    print(f"still waits for the other ranks after {SECONDS} s", file=sys.stderr, flush=True)
    os._exit(1)


def main() -> None:
    """The rank that the command line says."""
    rank, ranks, where, backend = sys.argv[1:]
    # A thread of its own, because a handler of signals would wait, as we do, for gloo or NCCL to return. They release
    # the interpreter; where they did not, the alarm ends us without a word.
    limit = threading.Timer(SECONDS, _give_up)
    limit.daemon = True
    limit.start()
    signal.alarm(SECONDS + 5)
    taken = seconds(int(rank), int(ranks), where, backend)
    if rank == "0":
        print(taken, flush=True)


if __name__ == "__main__":
    main()
