"""Checkpoints: written aside and renamed when whole, so that whatever bears a step's name can be loaded."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from distil.engine import Engine, Ranks
from distil.errors import ConfigError, DataError
from distil.placement import Placement

LATEST = "latest"
STATE = "state.json"


@dataclass(frozen=True)
class Position:
    """Where training stands: optimiser steps done, stream number of the next micro-batch, tokens seen so far."""

    step: int
    micro_batch: int
    tokens: int


class Checkpoints:
    """The checkpoints of one run, in ``folder``, of which the newest ``keep`` stay."""

    def __init__(self, folder: Path, keep: int, ranks: Ranks, placement: Placement) -> None:
        self._folder, self._keep, self._ranks = folder, keep, ranks
        self._made_by = {"ranks": ranks.world, "zero_stage": placement.zero_stage, "precision": placement.precision}

    def save(self, engine: Engine, position: Position) -> None:
        """Write a checkpoint at an accumulation boundary; every rank must call it."""
        name = f"step-{position.step:08d}"
        draft = f".{name}.draft"
        if self._ranks.first:
            shutil.rmtree(self._folder / draft, ignore_errors=True)
            self._folder.mkdir(parents=True, exist_ok=True)
        self._ranks.wait()
        engine.save(self._folder, draft)
        save_file(_random_state(), self._folder / draft / f"random-{self._ranks.rank}.safetensors")
        self._ranks.wait()
        if self._ranks.first:
            state = {**asdict(position), **self._made_by}
            (self._folder / draft / STATE).write_text(json.dumps(state, indent=2) + "\n")
            _sync_tree(self._folder / draft)
            shutil.rmtree(self._folder / name, ignore_errors=True)
            (self._folder / draft).rename(self._folder / name)
            self._point_to(name)
            self._prune()
        self._ranks.wait()

    def newest(self) -> str | None:
        """Name of the newest whole checkpoint, the same on every rank; None where there is none."""
        return self._ranks.share(newest_checkpoint(self._folder) if self._ranks.first else None)

    def load(self, engine: Engine, name: str) -> Position:
        """Restore model, optimiser and every rank's random state. Raises ConfigError where other ranks wrote it."""
        state = read_state(self._folder / name)
        for key, now in self._made_by.items():
            if state[key] != now:
                raise ConfigError(
                    f"checkpoint {self._folder / name} was written with {key} = {state[key]}, this run has {now}: "
                    "resume with the same number of ranks and the same ds_config, or start again in another folder "
                    f"(or after removing {self._folder.parent})"
                )
        engine.load(self._folder, name)
        _set_random_state(load_file(self._folder / name / f"random-{self._ranks.rank}.safetensors"))
        return Position(state["step"], state["micro_batch"], state["tokens"])

    def _point_to(self, name: str) -> None:
        draft = self._folder / f".{LATEST}.draft"
        with draft.open("w") as file:
            file.write(name + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._folder / LATEST)
        _sync(self._folder)

    def _prune(self) -> None:
        for old in _whole(self._folder)[: -self._keep]:
            shutil.rmtree(self._folder / old, ignore_errors=True)


def newest_checkpoint(folder: Path) -> str | None:
    """Name of the newest whole checkpoint in a folder: only a whole one bears a step's name."""
    whole = _whole(folder)
    return whole[-1] if whole else None


def read_state(checkpoint: Path) -> dict[str, int | str]:
    """What a checkpoint says of itself. Raises DataError where that cannot be read."""
    try:
        return json.loads((checkpoint / STATE).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(
            f"checkpoint {checkpoint}: {STATE} cannot be read ({error}); remove it to use the one before"
        ) from error


def _whole(folder: Path) -> list[str]:
    names = (path.name for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name))
    return sorted(names, key=lambda name: int(name.removeprefix("step-")))


def _random_state() -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def _sync_tree(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
