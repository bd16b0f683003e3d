"""One node of a job: replaces itself by DeepSpeed's launcher, which starts a rank for each of the node's GPUs.

srun --ntasks-per-node=1 python slurm/start_node.py launch/pretrain.py ...

Reads what SLURM tells a task (SLURM_NODEID, SLURM_NNODES, SLURM_GPUS_ON_NODE), MASTER_ADDR and MASTER_PORT, and
RANKS_PER_NODE where that is not the number of GPUs. All nodes of a job must have the same number of ranks.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping

from distil import errors


def launcher(environment: Mapping[str, str], program: list[str]) -> list[str]:
    """The command that starts this node's ranks of a program. Raises ConfigError where nobody says how many."""
    stated = environment.get("RANKS_PER_NODE") or environment.get("SLURM_GPUS_ON_NODE", "")
    if not stated.isdecimal() or int(stated) == 0:
        raise errors.ConfigError(
            f"ranks of this node: {stated or 'unknown'}; ask SLURM for GPUs (--gres=gpu:8) or set RANKS_PER_NODE"
        )
    count = int(stated)
    node = int(environment["SLURM_NODEID"])
    gpus: list[list[int | str]] = [list(range(count)) for _ in range(int(environment["SLURM_NNODES"]))]
    given = environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
    if len(given) >= count and all(given):
        gpus[node] = list(given[:count])  # where GPUs are not fenced off, a part of a node may begin with any of them
    # Of the other nodes the launcher counts the GPUs and nothing more, so that places do for names.
    world = json.dumps({f"node-{i}": of_node for i, of_node in enumerate(gpus)})
    return [
        sys.executable, "-u", "-m", "deepspeed.launcher.launch",
        f"--world_info={base64.urlsafe_b64encode(world.encode()).decode()}", f"--node_rank={node}",
        f"--master_addr={environment['MASTER_ADDR']}", f"--master_port={environment['MASTER_PORT']}", *program,
    ]  # fmt: skip


def main() -> None:
    """Become the launcher."""
    command = launcher(os.environ, sys.argv[1:])
    os.execv(command[0], command)


if __name__ == "__main__":
    sys.exit(errors.run(main))
