"""The folder of a run's checkpoints: which are whole, which is newest, how one comes into being and how old ones go."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from distil.checkpoint.manifest import Manifest
from distil.checkpoint.tensors import sync
from distil.errors import DataError

LATEST = "latest"
NAME = re.compile(r"step-\d{8,}")


def name_of(step: int) -> str:
    """Name of the checkpoint after ``step`` optimiser steps."""
    return f"step-{step:08d}"


def draft_of(folder: Path, step: int) -> Path:
    """Where a checkpoint is written before it is whole."""
    return folder / f".{name_of(step)}.draft"


def names(folder: Path) -> list[str]:
    """Names of the checkpoints in a folder, oldest first: only a whole one bears such a name."""
    found = [path.name for path in folder.glob("step-*") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda name: int(name.removeprefix("step-")))


def publish(folder: Path, manifest: Manifest, keep: int) -> None:
    """Make the draft of ``manifest``'s step a checkpoint, point to it, and drop all but the newest ``keep``.

    Killed at any point, it leaves the checkpoints that were there, with or without the new one. Raises OSError.
    """
    name = name_of(manifest.position.step)
    draft = draft_of(folder, manifest.position.step)
    manifest.write(draft)
    sync(draft)
    shutil.rmtree(folder / name, ignore_errors=True)  # of an earlier life of this run, past where it resumed
    draft.rename(folder / name)
    sync(folder)
    point_to(folder, name)
    for old in names(folder)[:-keep]:
        # By another name first: a checkpoint that is half deleted must not bear a whole one's.
        gone = folder / f".{old}.old"
        shutil.rmtree(gone, ignore_errors=True)
        (folder / old).rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def point_to(folder: Path, name: str) -> None:
    """Replace ``latest`` by one that names a checkpoint, in one step."""
    draft = folder / f".{LATEST}.draft"
    with draft.open("w") as file:
        file.write(name + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(folder / LATEST)
    sync(folder)


def clean(folder: Path) -> None:
    """Remove what an interrupted save or deletion left; only a run that holds the folder may."""
    for path in [*folder.glob(".step-*.draft"), *folder.glob(".step-*.old")]:
        shutil.rmtree(path, ignore_errors=True)


def newest_verified(folder: Path) -> tuple[str | None, list[str]]:
    """Name of the newest checkpoint that is as it was written, and lines to tell of what is not, ``latest`` included.

    Raises DataError where checkpoints have been there and none can be used: a run must not begin anew by itself.
    """
    damage: list[str] = []
    there = names(folder)
    for name in reversed(there):
        try:
            Manifest.read(folder / name).verify(folder / name)
        except DataError as error:
            damage.append(str(error))
            continue
        told = [f"checkpoint damaged: {what}; going back to the one before" for what in damage]
        pointer = _pointer(folder)
        if pointer not in there:
            what = "is missing" if pointer is None else f"names {pointer[:60]!r}, which is not there"
            told.append(f"{folder / LATEST} {what}; the newest checkpoint that verifies is {name}")
        return name, told
    if there or _pointer(folder) is not None:
        why = damage[0] if damage else f"{folder / LATEST} names {_pointer(folder)!r}"
        raise DataError(
            f"no checkpoint in {folder} can be used ({why}); put one back, or remove {folder} to begin "
            "again from step 0"
        )
    return None, []


def set_aside(folder: Path, name: str) -> str:
    """Rename a damaged checkpoint, so that its name is free and nobody takes it for one; returns its new name."""
    aside = next(n for i in range(10**6) if not (folder / (n := f"damaged-{name}" + (f"-{i}" if i else ""))).exists())
    (folder / name).rename(folder / aside)
    return aside


def _pointer(folder: Path) -> str | None:
    try:
        return (folder / LATEST).read_text(errors="replace").strip()
    except OSError:
        return None
