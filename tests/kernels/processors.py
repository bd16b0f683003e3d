"""What the processor here can do, and what lies within a limit."""

from __future__ import annotations

from pathlib import Path

import torch


def flags() -> set[str]:
    """Of the processor, by Linux' names."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return {word for line in lines if line.startswith("flags") for word in line.split()}


def within(found: torch.Tensor, wanted: torch.Tensor, limit: float | torch.Tensor) -> None:
    """Assert that no number is further from what is wanted than its limit."""
    apart = (found.double() - wanted.double()).abs() - limit
    assert bool((apart <= 0).all()), f"{float(apart.max())} more than allowed"
