"""The tensors of a checkpoint: one safetensors file a rank, each tensor a run of a parameter's elements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from distil.checkpoint.manifest import FileEntry, hash_file
from distil.errors import DataError
from distil.folder import sync

RANDOM = "random"  # kind of a rank's random states; the name says whose generator, the start which rank
Key = tuple[str, str, int]  # kind, parameter, first element


def file_name(rank: int) -> str:
    """Name of the file that a rank writes."""
    return f"rank-{rank:05d}.safetensors"


def write(path: Path, tensors: Mapping[Key, Tensor]) -> FileEntry:
    """Write tensors, on disk when this returns; its size and hash. Raises OSError and SafetensorError."""
    save_file({f"{kind}|{name}|{start}": value for (kind, name, start), value in tensors.items()}, path)
    sync(path)
    return FileEntry(path.stat().st_size, hash_file(path))


class Reader:
    """The tensors of all ranks' files together, by kind, parameter and elements. Nothing in them is ever run."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._stack = ExitStack()
        self._runs: dict[tuple[str, str], list[tuple[int, Any, str, int]]] = {}
        for path in paths:
            try:
                file = self._stack.enter_context(safe_open(path, framework="pt"))
                for key in file.keys():  # noqa: SIM118 - not a dict
                    kind, name, start = key.split("|")
                    (length,) = file.get_slice(key).get_shape()
                    self._runs.setdefault((kind, name), []).append((int(start), file, key, length))
            except (OSError, SafetensorError, ValueError) as error:
                self._stack.close()
                raise DataError(f"{path}: no tensors as we write them ({error})") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._runs.clear()
        self._stack.close()

    def read(self, kind: str, name: str, start: int, numel: int) -> Tensor:
        """Elements ``start`` to ``start + numel`` of a parameter, flat. Raises DataError where any is missing."""
        found = torch.empty(numel)
        covered = 0
        for at, file, key, length in self._runs.get((kind, name), []):
            first, last = max(start, at), min(start + numel, at + length)
            if first < last:
                found[first - start : last - start] = file.get_slice(key)[first - at : last - at]
                covered += last - first
        if covered != numel:
            raise DataError(
                f"the checkpoint holds {covered:,} of {numel:,} elements of {name} ({kind}) from {start:,} on"
            )
        return found

    def random_states(self, rank: int) -> dict[str, Tensor]:
        """A rank's random states by generator; none where no such rank wrote any."""
        return {
            name: file.get_tensor(key)
            for (kind, name), runs in self._runs.items()
            for at, file, key, _ in runs
            if kind == RANDOM and at == rank
        }


def random_states(rank: int) -> dict[Key, Tensor]:
    """This rank's random states, to be written with its tensors."""
    states = {(RANDOM, "cpu", rank): torch.get_rng_state()}
    if torch.cuda.is_available():
        states[RANDOM, "cuda", rank] = torch.cuda.get_rng_state()
    return states


def set_random_states(states: Mapping[str, Tensor]) -> None:
    """Take a rank's random states; those of another torch or device are left, since no step draws from them."""
    for name, take in (("cpu", torch.set_rng_state), ("cuda", torch.cuda.set_rng_state)):
        if name in states and (name == "cpu" or torch.cuda.is_available()):
            with suppress(RuntimeError):
                take(states[name])
