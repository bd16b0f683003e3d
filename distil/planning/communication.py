"""What ranks send each other in a step, how long it takes, and how much of that the backward pass hides.

As DeepSpeed 0.19.8 does it (read in its sources). Stages 0 and 1 reduce gradients once a global batch, by all-reduces
(stage 1's buckets, too: ``use_multi_rank_bucket_allreduce``), and after the backward pass, unless ``overlap_comm`` is
set. Stage 2 reduces in every micro-batch, stage 3 also gathers the weights twice in each. With ``overlap_comm`` a
bucket is sent once it is full: of a model no larger than ``reduce_bucket_size`` (5e8 elements unless a ds_config says
otherwise) nothing is sent before the backward pass has ended. Stages 1 and 2 gather what each rank has updated.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from distil.errors import ConfigError
from distil.planning.machines import HOP_SECONDS, LINK_SHARE, Machines
from distil.planning.rates import ITEMSIZE

BUCKET = 500_000_000  # DeepSpeed's default, in elements


def states_offload(config: dict[str, Any]) -> bool:
    """Whether a ds_config leaves the optimiser and its state to the host. Raises ConfigError."""
    block = config["zero_optimization"].get("offload_optimizer") or {}
    if not isinstance(block, dict):
        raise ConfigError(
            f"ds_config: zero_optimization.offload_optimizer is {block!r}; it must be a JSON object, as in "
            "ds_config/zero2_offload.json"
        )
    return (block.get("device") or "none") != "none"


def offloads(config: dict[str, Any], kind: str) -> bool:
    """Whether that takes work and memory off a device of this ``kind``: a CPU is the host itself."""
    return kind == "cuda" and states_offload(config)


class Communication(NamedTuple):
    """Of a step, a rank's: bytes it sends, seconds that takes, and seconds of these beside the backward pass."""

    sent: float
    seconds: float
    hidden: float

    @property
    def share_hidden(self) -> float:
        """Of the seconds; 0 where nothing is sent."""
        return self.hidden / self.seconds if self.seconds else 0.0


def communication(
    parameters: int, config: dict[str, Any], precision: str, accumulation: int, machines: Machines, backward: float
) -> Communication:
    """Of a step of so many micro-batches a rank, whose ``backward`` passes take so many seconds each.

    ``config`` is the ds_config. A ring sends (R - 1) / R of the bytes for each of its two halves (Patarasuk and Yuan
    2009); its latency is taken as a tree's, 2 log2 R hops, which NCCL uses where that is less.
    """
    ranks = machines.count
    if ranks == 1:
        return Communication(0.0, 0.0, 0.0)
    zero = config["zero_optimization"]
    stage = zero.get("stage", 0)
    whole = parameters * ITEMSIZE[precision]
    half = whole * (ranks - 1) / ranks
    reduced = 2 * half if stage < 3 else half
    reductions = accumulation if stage >= 2 else 1
    gathers = {0: 0, 1: 1, 2: 1, 3: 2 * accumulation}[stage]
    rate = bandwidth(machines)
    hops = HOP_SECONDS * math.ceil(math.log2(ranks))
    a_reduction, a_gather = reduced / rate + 2 * hops, half / rate + hops
    hidden = 0.0
    if zero.get("overlap_comm", stage == 3):
        early = max(0.0, 1 - zero.get("reduce_bucket_size", BUCKET) / parameters)
        hidden += reductions * min(a_reduction * early, backward)
        if stage == 3:  # weights of the layers to come are fetched ahead, those of the first one are not
            hidden += gathers * min(0.9 * a_gather, backward / 2)
    seconds = reductions * a_reduction + gathers * a_gather
    return Communication(reductions * reduced + gathers * half, seconds, min(hidden, seconds))


def bandwidth(machines: Machines) -> float:
    """Bytes a second of a ring over all ranks: of the link, or of a node's network where that is less."""
    device = machines.device
    slowest = device.link if machines.nodes == 1 else min(device.link, device.network)
    return slowest * LINK_SHARE
