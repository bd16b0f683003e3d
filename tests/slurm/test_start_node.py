"""The command by which a node of a SLURM job starts its ranks."""

from __future__ import annotations

import base64
import json
import runpy

import pytest
from harness import ROOT

from distil.errors import ConfigError

launcher = runpy.run_path(str(ROOT / "slurm" / "start_node.py"))["launcher"]
SECOND_OF_THREE = {
    "SLURM_NNODES": "3", "SLURM_NODEID": "1", "SLURM_GPUS_ON_NODE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1",
}  # fmt: skip


def gpus(**more: str) -> list[list[int | str]]:
    """GPUs of each node, as the launcher is told them."""
    command = launcher(SECOND_OF_THREE | more, ["program.py", "two words"])
    assert command[-2:] == ["program.py", "two words"] and "--node_rank=1" in command
    told = next(word for word in command if word.startswith("--world_info=")).removeprefix("--world_info=")
    return list(json.loads(base64.urlsafe_b64decode(told)).values())


def test_a_node_takes_the_gpus_that_it_was_given() -> None:
    assert gpus() == [[0, 1]] * 3
    assert gpus(CUDA_VISIBLE_DEVICES="4,6") == [[0, 1], ["4", "6"], [0, 1]]  # of others only the number counts
    assert gpus(CUDA_VISIBLE_DEVICES="4,6,7") == [[0, 1], ["4", "6"], [0, 1]]  # more than it has ranks
    assert gpus(CUDA_VISIBLE_DEVICES="0", RANKS_PER_NODE="3") == [[0, 1, 2]] * 3


@pytest.mark.parametrize("stated", ["", "0", "eight"])
def test_no_number_of_ranks_is_a_mistake(stated: str) -> None:
    with pytest.raises(ConfigError, match="RANKS_PER_NODE"):
        launcher(SECOND_OF_THREE | {"SLURM_GPUS_ON_NODE": stated}, ["program.py"])
