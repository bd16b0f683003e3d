"""What a store says of itself: names, codes and the sidecar's fields, each checked when read."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distil.errors import DataError

FORMAT_VERSION = 2
BUILD = "launch/binarize.py"
HEADER = struct.Struct("<9sQBQQ")  # magic, version, dtype code, sequences, document bounds
MAGIC = b"MMIDIDX\x00\x00"
# Megatron-LM's and GPT-NeoX's table. DeepSpeed's own reader takes code 8 for uint64, so it reads our int32 stores only.
DTYPE_CODES = {"uint16": 8, "int32": 4}
CODE_DTYPES = {code: dtype for dtype, code in DTYPE_CODES.items()}
SUFFIXES = (".bin", ".idx", ".order", ".counts.npy", ".json")  # commit order


def dtype_for(vocab_size: int) -> str:
    """Name of the stored integer type that holds every id below ``vocab_size``."""
    return "uint16" if vocab_size <= 1 << 16 else "int32"


def order_dtype(sequences: int) -> np.dtype:
    """Type of the numbers of so many sequences in an .order file."""
    return np.dtype(np.uint32 if sequences <= 1 << 32 else np.int64)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_texts(value: Any, keys: set[str]) -> bool:
    return isinstance(value, dict) and set(value) == keys and all(isinstance(text, str) for text in value.values())


def _is_lengths(value: Any) -> bool:
    """Pairs of a length and how many sequences have it, both above 0, lengths ascending, at least one."""
    if not isinstance(value, list) or not value:
        return False
    if not all(isinstance(p, list) and len(p) == 2 and all(_is_count(n) and n > 0 for n in p) for p in value):
        return False
    return all(one[0] < next_[0] for one, next_ in zip(value, value[1:], strict=False))


_SCHEMA: dict[str, Callable[[Any], bool]] = {
    "format_version": lambda value: value == FORMAT_VERSION and _is_count(value),
    "tokenizer": lambda value: _is_texts(value, {"name", "fingerprint"}),
    "special_ids": lambda value: isinstance(value, dict) and all(map(_is_count, value.values())),
    "vocab_size": _is_count,
    "dtype": lambda value: value in tuple(DTYPE_CODES),
    "max_length": _is_count,
    "sequences": lambda value: _is_count(value) and value > 0,
    "tokens": _is_count,
    "bounds": _is_count,
    "lengths": _is_lengths,
    "sha256": lambda value: _is_texts(value, {"bin", "idx", "order", "counts"}),
    "checksum": lambda value: isinstance(value, str),
}


def _checksum(fields: dict[str, str]) -> str:
    return hashlib.sha256("".join(f"{name}={value}\n" for name, value in fields.items()).encode()).hexdigest()


@dataclass(frozen=True)
class Origin:
    """What a store is made of: the tokenizer by name and fingerprint, its ids, and the longest sequence in ids."""

    tokenizer: dict[str, str]
    special_ids: dict[str, int]
    vocab_size: int
    max_length: int


@dataclass(frozen=True)
class StoreMeta:
    """The sidecar's fields: ``max_length`` and ``tokens`` count ids, [CLS] and [SEP] included.

    ``bounds`` is the number of document bounds in the .idx file, ``lengths`` pairs of a length and how many sequences
    have it, empty ones left out.
    """

    tokenizer: dict[str, str]
    special_ids: dict[str, int]
    vocab_size: int
    max_length: int
    dtype: str
    sequences: int
    tokens: int
    bounds: int
    lengths: list[list[int]]
    sha256: dict[str, str]
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Canonical JSON with a checksum of itself, ending in its closing brace, so that no cut can be parsed."""
        fields = {name: json.dumps(value, sort_keys=True) for name, value in sorted(asdict(self).items())}
        fields["checksum"] = json.dumps(_checksum(fields))
        return "{\n" + ",\n".join(f' "{name}": {value}' for name, value in fields.items()) + "\n}"

    @classmethod
    def from_json(cls, text: str | bytes, path: str | Path) -> StoreMeta:
        """Parse a sidecar; ``path`` is for messages. Raises DataError on missing, unknown or ill-typed fields."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not whole JSON ({error}); rebuild the store with {BUILD}") from error
        version = raw.get("format_version") if isinstance(raw, dict) else None
        if _is_count(version) and version != FORMAT_VERSION:
            raise DataError(
                f"{path}: field format_version is {version}, this release reads {FORMAT_VERSION}; rebuild the store "
                f"with {BUILD}, or remove {path} and see {BUILD} adopt"
            )
        if not isinstance(raw, dict) or set(raw) != set(_SCHEMA):
            found = set(raw) if isinstance(raw, dict) else set()
            missing, unknown = sorted(set(_SCHEMA) - found), sorted(found - set(_SCHEMA))
            raise DataError(f"{path}: missing fields {missing}, unknown fields {unknown}; rebuild with {BUILD}")
        for field, valid in _SCHEMA.items():
            if not valid(raw[field]):
                shown = f"{raw[field]!r}"[:100]
                raise DataError(f"{path}: field {field} cannot be {shown}; rebuild the store with {BUILD}")
        if raw["dtype"] == "uint16":
            expect(path, "dtype for its vocabulary", raw["dtype"], dtype_for(raw["vocab_size"]))
        expect(path, "tokens by length", sum(length * count for length, count in raw["lengths"]), raw["tokens"])
        stated = raw.pop("checksum")
        fields = {name: json.dumps(value, sort_keys=True) for name, value in sorted(raw.items())}
        expect(path, "checksum", _checksum(fields), stated)
        return cls(**raw)


def expect(path: str | Path, what: str, actual: Any, expected: Any) -> None:
    """Raise DataError, naming the file and both, where they differ."""
    if actual != expected:
        raise DataError(f"{path}: {what} is {actual!r}, expected {expected!r}; rebuild the store with {BUILD}")
