"""Rates of this machine, as they were measured: seconds of a unit of each kind of work, kept from run to run."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from distil.errors import ConfigError
from distil.folder import prepared, read_object, write_whole
from distil.machine import machine
from distil.planning.machines import Device
from distil.planning.passes import Attention, Pass
from distil.planning.products import WEIGHT_GRADIENT, Product

Item = Product | Attention | Pass | str
UPDATE, STREAM, LAUNCH = "a parameter's update", "a byte", "an operation"  # work without a shape
AGAIN = "measure this machine: launch/plan.py --gpus this --measure, with the same recipe"


def key(item: Item) -> str:
    """What its unit's time hangs on, rows left out: these come in any number."""
    match item:
        case Product():
            fixed = (item.rows, item.columns) if item.kind == WEIGHT_GRADIENT else (item.inner, item.columns)
            return f"{item.name if item.name == 'head.decoder' else 'product'} {item.kind} {fixed[0]}x{fixed[1]}"
        case Attention():
            how = f"{'causal ' * item.causal}{f'dropout {item.dropout:g} ' * (item.dropout > 0)}"
            return f"attention {how}{item.kind} {item.heads}x{item.width} of {len(item.lengths)}x{max(item.lengths)}"
        case Pass():
            return f"{item.name} {item.kind} {item.width}{' fp32' * (item.bytes == 4)}"
    return item


def units(item: Item) -> float:
    """How many units an item has: FLOPs, or elements."""
    match item:
        case Product() | Attention():
            return item.flops
        case Pass():
            return item.rows * item.width * item.times
    return 1.0


class ByItem:
    """Rates of which each is asked for by an item: ``of`` has its seconds, all its times."""

    def of(self, item: Item) -> float:
        """Seconds of an item."""
        raise NotImplementedError

    def product(self, item: Product) -> float:
        return self.of(item)

    def attention(self, item: Attention) -> float:
        return self.of(item)

    def pass_(self, item: Pass) -> float:
        return self.of(item)

    def update(self, parameters: float) -> float:
        return self.of(UPDATE) * parameters

    def stream(self, bytes: float) -> float:
        return self.of(STREAM) * bytes

    def launches(self, count: float) -> float:
        return self.of(LAUNCH) * count


@dataclass(frozen=True)
class Calibration(ByItem):
    """Rates by what was measured. ``seconds`` of a unit are by key; what is not there is a ConfigError."""

    device: Device
    precision: str
    seconds: dict[str, float] = field(repr=False)

    def of(self, item: Item) -> float:
        """Of an item, all its times."""
        name = key(item)
        if name not in self.seconds:
            raise ConfigError(f"no rate of this machine for {name} in {self.precision}; {AGAIN}")
        return self.seconds[name] * units(item)


@dataclass(frozen=True)
class Asking(ByItem):
    """Rates of nothing, which note what they are asked for: one item of each key, that with the most units."""

    device: Device
    precision: str
    items: dict[str, Item] = field(default_factory=dict)

    def of(self, item: Item) -> float:
        """Note it; 0 seconds."""
        if key(item) not in self.items or units(item) > units(self.items[key(item)]):
            self.items[key(item)] = item
        return 0.0


def place_of(device: torch.device, precision: str) -> Path:
    """File of this machine's rates: by device, threads, torch's version and precision."""
    what = json.dumps([machine(device), _threads(device), torch.__version__, precision])
    return prepared() / "rates" / f"{hashlib.sha256(what.encode()).hexdigest()[:12]}.json"


def kept(device: torch.device, precision: str) -> dict[str, float]:
    """What has been measured here before. Raises DataError for a damaged file."""
    path = place_of(device, precision)
    if not path.exists():
        return {}
    return read_object(path, f"delete it, and {AGAIN}")["seconds"]


def keep(device: torch.device, precision: str, seconds: dict[str, float]) -> Path:
    """Put rates beside those that are kept; returns the file."""
    path = place_of(device, precision)
    values = {
        "machine": machine(device), "threads": _threads(device), "torch": torch.__version__, "precision": precision,
        "seconds": kept(device, precision) | seconds,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(values, indent=1) + "\n")
    return path


def _threads(device: torch.device) -> int:
    return torch.get_num_threads() if device.type == "cpu" else 0


def memory_here(device: torch.device) -> int:
    """Bytes of the device's memory."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


Measure = Callable[[Item], float]
