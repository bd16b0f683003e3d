"""How a run is made: when, on what, with which versions of what."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import distil
from distil.engine.ranks import Ranks
from distil.machine import device_name, machine
from distil.placement import Placement

COMPARED = ("precision", "ranks", "device")  # of two runs that are compared, these had better be the same
_SHOWN = ("machine", "ranks", "precision", "ds_config", "torch", "deepspeed", "git")
How = Mapping[str, Any]  # how a run was made, as ``made_now`` has it


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


def in_words(made: Mapping[tuple[str, int], How]) -> list[str]:
    """A line for all runs, by what they are called and their seed, that were made alike but for the day: which, how."""
    alike: dict[str, list[tuple[str, int]]] = {}
    for one, how in made.items():
        alike.setdefault(_how(how), []).append(one)
    found = []
    for text, those in alike.items():
        dates = sorted({str(made[one]["date"]) for one in those if "date" in made[one]})
        days = f", {' to '.join(dict.fromkeys((dates[0], dates[-1])))}" if dates else ""
        seeds: dict[str, list[int]] = {}
        for name, seed in those:
            seeds.setdefault(name, []).append(seed)
        which = "; ".join(f"{name}, {seeds_in_words(numbers)}" for name, numbers in seeds.items())
        found.append(f"- {len(those)} of {len(made)} runs{days}: {text}: {which}")
    return found


def seeds_in_words(seeds: Sequence[int]) -> str:
    """Seeds as a person lists them."""
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _how(made: How) -> str:
    """In words; of what is not there, a question mark."""
    if not made.keys() & set(_SHOWN):
        return "how and when they were made is not recorded"
    of = {key: made.get(key, "?") for key in _SHOWN}
    return (
        f"{of['machine']}; {of['ranks']} rank(s), {of['precision']}, {of['ds_config']}; torch {of['torch']}, "
        f"DeepSpeed {of['deepspeed']}, git {of['git']}"
    )
