"""How a run is made: when, on what, with which versions of what."""

from __future__ import annotations

import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import distil
from distil.engine.ranks import Ranks
from distil.machine import device_name, machine
from distil.placement import Placement

COMPARED = ("precision", "ranks", "device")  # of two runs that are compared, these had better be the same


def made_now(placement: Placement, ranks: Ranks) -> dict[str, Any]:
    """When, where and with what a run is made that is made now."""
    return {
        "date": time.strftime("%F"), "machine": machine(ranks.device), "device": device_name(ranks.device),
        "ranks": ranks.world, "precision": placement.precision, "ds_config": placement.path,
        "torch": torch.__version__, "deepspeed": metadata.version("deepspeed"), "git": git_revision(),
    }  # fmt: skip


def versions(device: torch.device) -> dict[str, str]:
    """What stands beside a run's curves: revision, versions, and the device in words."""
    packages = {name: metadata.version(name) for name in ("transformers", "deepspeed")}
    return {
        "git": git_revision(), "distil": distil.__version__, "torch": torch.__version__, **packages,
        "device": machine(device),
    }  # fmt: skip


def git_revision() -> str:
    """Revision of the checkout this code runs from, with a + where files differ from it; 'unknown' outside git."""
    where = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
