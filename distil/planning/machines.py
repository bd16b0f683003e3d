"""Devices as data: what their makers state, what was reported to us, and what is only assumed.

Figures of GPUs are of NVIDIA's data sheets, of nodes and networks of the DGX system with eight of them: *Tesla V100*
(2020) and *DGX-1 with V100* (2018), *A100 40/80 GB* and *DGX A100* (2021), *H100 SXM* and *DGX H100* (2023), *H200 SXM*
and *DGX H200* (2024). Matrix rates are dense ones, half of those that a sheet states "with sparsity". A link's rate is
that of one direction, half of what sheets add up.

Memory is what torch reports (``total_memory``), less than a sheet's by what error correction and the driver keep. Of an
H200 it is as whoever has one told us, about 139 GiB; of the others, which differ a little by the driver, as messages in
public issues have it ("total capacity of ..."): V100 15.75 and 31.74, A100 39.39 and 79.25, H100 79.11; rounded down.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from distil.errors import ConfigError
from distil.fields import nearest

GIGA, TERA, GIB = 10**9, 10**12, 2**30
THIS = "this"
_ASKED = re.compile(r"(\d+)[xX](.+)")
# Of the host for an operation of eager code, Python of transformers and autograd included, and of a hop of a
# collective; assumed, both of the usual order.
LAUNCH_SECONDS, HOP_SECONDS = 10e-6, 10e-6
LINK_SHARE = 0.8  # of a link's rate that a collective attains; assumed
HOST_RATE = 12 * GIGA  # of a GPU to host memory, and its rank's part of that memory's own; assumed, a PCIe 3.0 x16's


class Share(NamedTuple):
    """A share of what a sheet states, and where it is from."""

    share: float
    source: str


# Reported of one H200, not repeated here: 788 TFLOP/s of large bf16 products, 4.3 TB/s of a copy.
REPORTED_H200 = (Share(788 / 989, "reported of large products"), Share(4.3 / 4.8, "reported"))
LIKE_H200 = (Share(788 / 989, "assumed: an H200's"), Share(4.3 / 4.8, "assumed: an H200's"))
OF_V100 = (Share(0.5, "assumed"), Share(4.3 / 4.8, "assumed: an H200's"))


@dataclass(frozen=True)
class Device:
    """A GPU in its usual node; rates are a second's.

    ``flops`` are the peaks of matrix products by precision, best first; ``matrix`` and ``stream`` the shares of these
    and of the memory's ``bandwidth`` that large work attains. ``link`` leads from a GPU to the others of its node,
    ``network`` out of the node; ``node_watts`` are the most that the whole node draws. ``reported`` is the name that
    torch has for it, its maker left out.
    """

    name: str
    flops: dict[str, float] = field(hash=False)
    multiprocessors: int
    memory: int
    bandwidth: float
    link: float
    network: float
    node_watts: float
    matrix: Share
    stream: Share
    node: str
    node_gpus: int = 8
    launch_seconds: float = LAUNCH_SECONDS
    type: str = "cuda"
    reported: str = ""

    @property
    def precisions(self) -> tuple[str, ...]:
        """What it computes in at speed, best first, as ``engine.device.precisions_of`` has them."""
        return tuple(self.flops)

    @property
    def watts(self) -> float:
        """Of a GPU with its part of the node."""
        return self.node_watts / self.node_gpus


def _volta(name: str, gib: float) -> Device:
    return Device(
        name, {"fp16": 125 * TERA, "fp32": 15.7 * TERA}, 80, int(gib * GIB), 900 * GIGA, link=150 * GIGA,
        network=50 * GIGA, node_watts=3500, matrix=OF_V100[0], stream=OF_V100[1], node="DGX-1, 4 x 100 Gb/s",
        reported=name,
    )  # fmt: skip


def _ampere(name: str, gib: float, bandwidth: float) -> Device:
    return Device(
        name, {"fp16": 312 * TERA, "bf16": 312 * TERA, "fp32": 19.5 * TERA}, 108, int(gib * GIB), bandwidth,
        link=300 * GIGA, network=200 * GIGA, node_watts=6500, matrix=LIKE_H200[0], stream=LIKE_H200[1],
        node="DGX A100, 8 x 200 Gb/s", reported=name,
    )  # fmt: skip


def _hopper(name: str, gib: float, bandwidth: float, shares: tuple[Share, Share], reported: str) -> Device:
    return Device(
        name, {"fp16": 989 * TERA, "bf16": 989 * TERA, "fp32": 67 * TERA}, 132, int(gib * GIB), bandwidth,
        link=450 * GIGA, network=400 * GIGA, node_watts=10200, matrix=shares[0], stream=shares[1],
        node=f"DGX {name[:4]}, 8 x 400 Gb/s", reported=reported,
    )  # fmt: skip


DEVICES = {
    "V100": _volta("V100-SXM2-16GB", 15.7),
    "V100-32GB": _volta("V100-SXM2-32GB", 31.7),
    "A100": _ampere("A100-SXM4-40GB", 39.3, 1555 * GIGA),
    "A100-80GB": _ampere("A100-SXM4-80GB", 79.2, 2039 * GIGA),
    "H100": _hopper("H100-SXM-80GB", 79.1, 3350 * GIGA, LIKE_H200, "H100 80GB HBM3"),
    "H200": _hopper("H200-SXM-141GB", 139.0, 4800 * GIGA, REPORTED_H200, "H200"),
}


def reported_as(name: str) -> Device | None:
    """The device that torch calls so, as in "NVIDIA H200"; None for one that is not in the table."""
    bare = name.removeprefix("NVIDIA ").removeprefix("Tesla ")
    return next((device for device in DEVICES.values() if device.reported == bare), None)


class Machines(NamedTuple):
    """So many of a device."""

    device: Device
    count: int

    def __str__(self) -> str:
        return f"{self.count} x {self.device.name}"

    @property
    def nodes(self) -> int:
        """Nodes that they fill."""
        return -(-self.count // self.device.node_gpus)


def machines(asked: str) -> Machines:
    """What ``--gpus`` names, as 8xV100 or 16xA100-80GB. Raises ConfigError for a device that is not in the table."""
    match = _ASKED.fullmatch(asked)
    name = match[2] if match else asked
    known = {key.lower(): key for key in DEVICES} | {device.name.lower(): key for key, device in DEVICES.items()}
    if name.lower() not in known:
        names = ", ".join(DEVICES)
        raise ConfigError(f"--gpus {asked}: no such device{nearest(name, DEVICES)}; there are {names}, and {THIS}")
    if match is None or int(match[1]) < 1:
        raise ConfigError(f"--gpus {asked}: say how many, as in 8x{name}")
    return Machines(DEVICES[known[name.lower()]], int(match[1]))
