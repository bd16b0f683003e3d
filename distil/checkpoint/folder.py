"""The folder of a run's checkpoints: which are whole, which is newest, how one comes into being and how old ones go."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from distil.checkpoint.manifest import Manifest
from distil.errors import DataError
from distil.folder import sync, write_whole

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

    Killed at any point, it leaves the checkpoints that were there, with or without the new one. Raises OSError, too
    where a rank's file is not in the draft.
    """
    name = name_of(manifest.position.step)
    draft = draft_of(folder, manifest.position.step)
    for file, entry in manifest.files.items():
        if not (draft / file).exists() or (draft / file).stat().st_size != entry.bytes:
            raise OSError(f"{draft / file} is not as its rank wrote it: do all hosts share this folder?")
    manifest.write(draft)
    sync(draft)
    if (folder / name).exists():
        _drop(folder, name)
    draft.rename(folder / name)
    sync(folder)
    sync(folder.parent)
    point_to(folder, name)
    for old in names(folder)[:-keep]:
        _drop(folder, old)


def _drop(folder: Path, name: str) -> None:
    """Remove a checkpoint, by another name first: what is half deleted must not bear a whole one's."""
    gone = folder / f".{name}.old"
    shutil.rmtree(gone, ignore_errors=True)
    (folder / name).rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def point_to(folder: Path, name: str) -> None:
    """Replace ``latest`` by one that names a checkpoint, in one step."""
    write_whole(folder / LATEST, name + "\n")


def clean(folder: Path) -> None:
    """Remove what an interrupted save or deletion left; only a run that holds the folder may."""
    for path in [*folder.glob(".step-*.draft"), *folder.glob(".step-*.old")]:
        shutil.rmtree(path, ignore_errors=True)


def newest_verified(folder: Path) -> tuple[str | None, list[str]]:
    """Name of the newest checkpoint that is as it was written, and lines to tell of what is not, ``latest`` included.

    Damaged ones that are newer get another name. Raises DataError where checkpoints have been there and none can be
    used: a run must not begin anew by itself.
    """
    damage: list[tuple[str, str]] = []
    there = names(folder)
    for name in reversed(there):
        try:
            Manifest.read(folder / name).verify(folder / name)
        except DataError as error:
            damage.append((name, str(error)))
            continue
        told = [_told_aside(folder, bad, why) for bad, why in damage]
        pointer = _pointer(folder)
        if pointer not in there:
            what = "is missing" if pointer is None else f"names {pointer[:60]!r}, which is not there"
            told.append(f"{folder / LATEST} {what}; the newest checkpoint that verifies is {name}")
        if pointer != name:
            point_to(folder, name)
        return name, told
    if there or _pointer(folder) is not None:
        raise none_left(folder, damage[0][1] if damage else f"{folder / LATEST} names {_pointer(folder)!r}")
    return None, []


def none_left(folder: Path, why: str) -> DataError:
    """The error of a run that has had checkpoints, of which none can be used."""
    return DataError(
        f"no checkpoint in {folder} can be used ({why}); put one back, or remove {folder} to begin again from step 0"
    )


def set_aside(folder: Path, name: str, why: str) -> str:
    """Give a damaged checkpoint a name that nobody takes for one's; returns the line that tells it."""
    line = _told_aside(folder, name, why)
    if left := names(folder):
        point_to(folder, left[-1])
    return line


def _told_aside(folder: Path, name: str, why: str) -> str:
    aside = next(n for i in range(10**6) if not (folder / (n := f"damaged-{name}" + (f"-{i}" if i else ""))).exists())
    (folder / name).rename(folder / aside)
    return f"checkpoint damaged: {why}; it is now {aside}, and the one before is taken"


def _pointer(folder: Path) -> str | None:
    try:
        return (folder / LATEST).read_text(errors="replace").strip()
    except OSError:
        return None
