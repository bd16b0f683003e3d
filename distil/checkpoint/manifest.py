"""What a checkpoint says of itself: where training stood, who wrote it, and the size and hash of every file."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from distil.errors import DataError

MANIFEST = "manifest.json"
FORMAT_VERSION = 1
FILE_NAME = re.compile(r"rank-\d{5}\.safetensors")
BLOCK = 1 << 22


@dataclass(frozen=True)
class Position:
    """Where training stands: optimiser steps done, stream number of the next micro-batch, tokens seen so far."""

    step: int
    micro_batch: int
    tokens: int


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 of a file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """``identity`` is the run's, ``numbers`` what the engine needs beside tensors, ``health`` what has been
    counted of bad steps."""

    position: Position
    ranks: int
    zero_stage: int
    precision: str
    identity: dict[str, Any]
    numbers: dict[str, Any]
    health: dict[str, Any]
    files: dict[str, FileEntry]

    def write(self, folder: Path) -> None:
        """Write it into a checkpoint's folder, on disk when this returns."""
        content = {"format_version": FORMAT_VERSION, **asdict(self)}
        with (folder / MANIFEST).open("w") as file:
            json.dump({"sha256": _digest(content), **content}, file, indent=1)
            file.flush()
            os.fsync(file.fileno())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest in a checkpoint's folder. Raises DataError where it is missing or not as it was written."""
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_text())
            told = content.pop("sha256")
            if told != _digest(content):
                raise DataError(f"{path}: its hash differs from the one it states")
            if content.pop("format_version") != FORMAT_VERSION:
                raise DataError(f"{path}: of another version of this program")
            position = Position(**content.pop("position"))
            files = {name: FileEntry(**entry) for name, entry in content.pop("files").items()}
            manifest = cls(position=position, files=files, **content)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error
        for name in files:
            if not FILE_NAME.fullmatch(name):
                raise DataError(f"{path}: names a file {name!r}, which no checkpoint of ours has")
        return manifest

    def verify(self, folder: Path) -> None:
        """Read every file against its size and hash. Raises DataError naming the first that is not as written."""
        for name, entry in self.files.items():
            path = folder / name
            try:
                size = path.stat().st_size
                if size != entry.bytes:
                    raise DataError(f"{path}: {size:,} bytes, {entry.bytes:,} were written")
                found = hash_file(path)
            except OSError as error:
                raise DataError(f"{path}: cannot be read ({error.strerror})") from error
            if found != entry.sha256:
                raise DataError(f"{path}: its hash differs from the manifest's")


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
