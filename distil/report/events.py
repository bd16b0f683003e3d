"""A run's event files: curves, texts, when each process trained, and which files are damaged."""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from distil.errors import DataError

TEXT = "/text_summary"  # what TensorBoard adds to the tag of a text
_HEAD = struct.Struct("<QI")  # of a record: its length, with a checksum; the data and theirs follow
_SUM = struct.Struct("<I")


@dataclass(frozen=True)
class Curve:
    """Values of one tag, by step; ``steps`` never fall."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Events:
    """All event files of a folder, without what a resumed run has done anew; the fields are those of ``Record``."""

    curves: dict[str, Curve]
    texts: dict[str, str]
    sessions: tuple[tuple[float, float], ...]
    damaged: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Empty where there is no folder. Raises DataError where it cannot be read."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.util import tb_logging

        tb_logging.get_logger().setLevel(logging.CRITICAL)  # the end of a killed run's file is no news
        if not folder.is_dir():
            return cls({}, {}, (), ())
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
        try:
            events.Reload()
            found = events.Tags()
            scalars = {tag: events.Scalars(tag) for tag in found["scalars"]}
            texts = {tag.removesuffix(TEXT): events.Tensors(tag) for tag in found["tensors"] if tag.endswith(TEXT)}
            damaged = tuple(path.name for path in sorted(folder.glob("*tfevents*")) if _damaged(path.read_bytes()))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{folder} cannot be read ({error}); remove it to have a page without curves") from error
        last = {name: _text(said[-1].tensor_proto.string_val) for name, said in texts.items() if said}
        starts = sorted(said.wall_time for said in next(iter(texts.values()), []))
        times = np.sort(np.concatenate([[v.wall_time for v in values] for values in scalars.values()] or [[]]))
        return cls(_curves(scalars), last, _sessions(starts, times), damaged)


def _curves(scalars: dict[str, list[Any]]) -> dict[str, Curve]:
    curves = {}
    for tag, values in scalars.items():
        if not values:  # all of it belongs to steps that were done anew
            continue
        steps, numbers = np.array([v.step for v in values]), np.array([v.value for v in values], dtype=float)
        order = np.argsort(steps, kind="stable")
        curves[tag] = Curve(steps[order], numbers[order])
    return curves


def _damaged(data: bytes) -> bool:
    """Whether a record of an event file is spoilt, at which TensorBoard stops reading it without a word.

    A file that ends within a record, as a killed process leaves it, lacks that one alone and is not damaged.
    """
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    at = 0
    while at + _HEAD.size <= len(data):
        length, checksum = _HEAD.unpack_from(data, at)
        if masked_crc32c(data[at : at + 8]) != checksum:
            return True
        at += _HEAD.size
        if at + length + _SUM.size > len(data):
            return False
        if (masked_crc32c(data[at : at + length]),) != _SUM.unpack_from(data, at + length):
            return True
        at += length + _SUM.size
    return False


def _sessions(starts: list[float], times: np.ndarray) -> tuple[tuple[float, float], ...]:
    """From each start to the last sign before the next one."""
    starts = starts or times[:1].tolist()
    found = []
    for start, following in zip(starts, [*starts[1:], np.inf][: len(starts)], strict=True):
        within = times[(times >= start) & (times < following)]
        found.append((start, float(within[-1]) if len(within) else start))
    return tuple(found)


def _text(parts: Any) -> str:
    """A text as the monitor was given it, before it was indented to be preformatted."""
    lines = (parts[0].decode("utf-8", "replace") if parts else "").splitlines()
    return "\n".join(line.removeprefix("    ") for line in lines)
