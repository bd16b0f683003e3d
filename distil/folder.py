"""A folder that comes into being whole or not at all, and the one for what is prepared once."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distil.errors import DataError


@contextmanager
def building(folder: Path, replace: bool = False) -> Iterator[Path]:
    """A draft to fill that becomes ``folder`` when all has gone well, and nothing otherwise.

    Raises FileExistsError where ``folder`` exists, unless it is a folder that is to be replaced.
    """
    if folder.exists() and not (replace and folder.is_dir()):
        raise FileExistsError(f"{folder} exists")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    draft.chmod(0o755)
    old = draft.with_name(draft.name + ".old")
    try:
        yield draft
        if folder.exists():
            folder.rename(old)
        draft.rename(folder)
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Put a file, or a folder's list of names, on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, text: str) -> None:
    """Replace a small file in one step; it is on disk, with its name, when this returns. Raises OSError."""
    draft = path.with_name(f".{path.name}")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync(path.parent)


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in a file. Raises DataError, which ends in the ``remedy``, where there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); {remedy}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} cannot be read (it holds no JSON object); {remedy}")
    return values


def prepared() -> Path:
    """Folder of everything that is downloaded or built once and reused: .cache, or where DISTIL_CACHE says."""
    return Path(os.environ.get("DISTIL_CACHE", ".cache"))


def standing(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists: there it will be made."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder
