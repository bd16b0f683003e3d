"""The machine in words."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def device_name(device: torch.device) -> str:
    """A GPU's name, or the processor's."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return models[0].partition(": ")[2] if models else platform.processor() or platform.machine()


def machine(device: torch.device) -> str:
    """The device in words: its name, and of a processor the cores that this process may use."""
    if device.type == "cuda":
        return device_name(device)
    cores = len(os.sched_getaffinity(0))
    return f"{device_name(device)}, {cores} core{'s' if cores > 1 else ''}"
