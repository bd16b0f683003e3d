"""The token store: sequences of token ids on disk, memory-mapped, and refused when damaged.

A store PREFIX is four files. The first two are Megatron-LM's indexed dataset.

    PREFIX.bin         ids of all sequences back to back: uint16 up to a vocabulary of 65,536, else int32
    PREFIX.idx         header; int32 sizes (N,); int64 byte offsets (N,); int64 document bounds 0..N (N + 1,)
    PREFIX.counts.npy  int64 (vocab_size,): how often each id occurs
    PREFIX.json        the sidecar: origin, sizes and checksums; written last, so without it there is no store
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distil.errors import DataError

FORMAT_VERSION = 1
BUILD = "launch/binarize.py"
HEADER = struct.Struct("<9sQBQQ")  # magic, version, dtype code, sequences, document bounds
MAGIC = b"MMIDIDX\x00\x00"
# Megatron-LM's and GPT-NeoX's table. DeepSpeed's own reader takes code 8 for uint64, so it reads our int32 stores only.
DTYPE_CODES = {"uint16": 8, "int32": 4}
SUFFIXES = (".bin", ".idx", ".counts.npy", ".json")  # commit order
CHUNK = 1 << 23  # bytes or entries handled at a time: flat memory whatever the size of the store


def dtype_for(vocab_size: int) -> str:
    """Name of the stored integer type that holds every id below ``vocab_size``."""
    return "uint16" if vocab_size <= 1 << 16 else "int32"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_texts(value: Any, keys: set[str]) -> bool:
    return isinstance(value, dict) and set(value) == keys and all(isinstance(text, str) for text in value.values())


_SCHEMA: dict[str, Callable[[Any], bool]] = {
    "format_version": lambda value: value == FORMAT_VERSION and _is_count(value),
    "tokenizer": lambda value: _is_texts(value, {"name", "fingerprint"}),
    "special_ids": lambda value: isinstance(value, dict) and all(map(_is_count, value.values())),
    "vocab_size": _is_count,
    "dtype": lambda value: value in tuple(DTYPE_CODES),
    "max_length": _is_count,
    "sequences": lambda value: _is_count(value) and value > 0,
    "tokens": _is_count,
    "sha256": lambda value: _is_texts(value, {"bin", "idx", "counts"}),
}


@dataclass(frozen=True)
class StoreMeta:
    """The sidecar's fields: ``max_length`` and ``tokens`` count ids, [CLS] and [SEP] included."""

    tokenizer: dict[str, str]
    special_ids: dict[str, int]
    vocab_size: int
    dtype: str
    max_length: int
    sequences: int
    tokens: int
    sha256: dict[str, str]
    format_version: int = FORMAT_VERSION

    def to_json(self) -> str:
        """Canonical JSON; it ends in its closing brace, so that a file cut by even one byte cannot be parsed."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes, path: str | Path) -> StoreMeta:
        """Parse a sidecar; ``path`` is for messages. Raises DataError on missing, unknown or ill-typed fields."""
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path}: not whole JSON ({error}); rebuild the store with {BUILD}") from error
        if not isinstance(raw, dict) or set(raw) != set(_SCHEMA):
            found = set(raw) if isinstance(raw, dict) else set()
            missing, unknown = sorted(set(_SCHEMA) - found), sorted(found - set(_SCHEMA))
            raise DataError(f"{path}: missing fields {missing}, unknown fields {unknown}; rebuild with {BUILD}")
        for field, valid in _SCHEMA.items():
            if not valid(raw[field]):
                raise DataError(f"{path}: field {field} cannot be {raw[field]!r}; rebuild the store with {BUILD}")
        _expect(path, "dtype for its vocabulary", raw["dtype"], dtype_for(raw["vocab_size"]))
        return cls(**raw)


def _expect(path: str | Path, what: str, actual: Any, expected: Any) -> None:
    if actual != expected:
        raise DataError(f"{path}: {what} is {actual!r}, expected {expected!r}; rebuild the store with {BUILD}")


@contextmanager
def refusing(path: str | Path, what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot {what} ({error.strerror}); {remedy}") from error


class Store:
    """A read-only token store; its arrays are views of memory-mapped files, shared by all processes of a node."""

    def __init__(self, prefix: str, meta: StoreMeta, arrays: tuple[np.ndarray, ...]) -> None:
        """Use ``Store.open``; ``arrays`` are lengths int32 (N,), byte offsets int64 (N,), ids, counts int64 (V,)."""
        self.prefix, self.meta = prefix, meta
        self.lengths, self._starts, self._ids, self.token_counts = arrays

    @classmethod
    def open(cls, prefix: str | Path) -> Store:
        """Map the store at ``prefix``, a path without extension; raises DataError on any sign of truncation."""
        prefix = str(Path(prefix))
        paths = {suffix: Path(prefix + suffix) for suffix in SUFFIXES}
        if not paths[".json"].is_file():
            raise DataError(f"{prefix}: no token store here (no {paths['.json']}); build it: {BUILD} --out {prefix}")
        for path in paths.values():
            if not path.is_file():
                raise DataError(f"{path}: missing, though the store has its sidecar; rebuild the store with {BUILD}")
        with refusing(prefix, "read", "check its permissions"):
            meta = StoreMeta.from_json(paths[".json"].read_bytes(), paths[".json"])
            counts = _read_counts(paths[".counts.npy"], meta)
            lengths, offsets = _map_index(paths[".idx"], meta)
            width = np.dtype(meta.dtype).itemsize
            _expect(paths[".bin"], "size in bytes", paths[".bin"].stat().st_size, meta.tokens * width)
            ids = np.asarray(np.memmap(paths[".bin"], dtype=np.dtype(meta.dtype).newbyteorder("<"), mode="r"))
        return cls(prefix, meta, (lengths, offsets, ids, counts))

    def __len__(self) -> int:
        return self.meta.sequences

    @property
    def tokens(self) -> int:
        """Number of ids in the store."""
        return self.meta.tokens

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify the store's contents and the tokenizer that made them."""
        parts = [*(self.meta.sha256[key] for key in ("bin", "idx", "counts")), self.meta.tokenizer["fingerprint"]]
        return hashlib.sha256(":".join(parts).encode()).hexdigest()[:16]

    def sequence(self, i: int) -> np.ndarray:
        """Ids of sequence ``i``: a view (length,) of the stored dtype; raises IndexError out of range."""
        start = int(self._starts[i]) // self._ids.itemsize
        return self._ids[start : start + int(self.lengths[i])]

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sequences ``indices`` (B,) back to back: ids int64 (sum of lengths,) and lengths int32 (B,)."""
        indices = np.asarray(indices, dtype=np.int64)
        lengths = self.lengths[indices]
        starts = self._starts[indices] // self._ids.itemsize
        ends = np.cumsum(lengths, dtype=np.int64)
        # Position p of the result, inside sequence b, is id starts[b] + (p - where b begins in the result).
        shift = np.repeat(starts - ends + lengths, lengths)
        return self._ids[shift + np.arange(shift.size)].astype(np.int64), lengths

    def check_tokenizer(self, fingerprint: str, name: str) -> None:
        """Raises DataError, naming both tokenizers, unless ``fingerprint`` is that of the store's tokenizer."""
        mine = self.meta.tokenizer
        if mine["fingerprint"] != fingerprint:
            raise DataError(
                f"{self.prefix}: built with tokenizer {mine['name']} ({mine['fingerprint'][:12]}), which gives other "
                f"ids than {name} ({fingerprint[:12]}); use that tokenizer or rebuild the store with {BUILD}"
            )

    def verify(self) -> None:
        """Read the whole store; raises DataError on an id outside the vocabulary or a checksum that differs."""
        path, dtype, vocab = f"{self.prefix}.bin", self._ids.dtype, self.meta.vocab_size
        counts, seen = np.zeros(vocab, dtype=np.int64), 0
        with refusing(self.prefix, "read", "check the disk"):
            for block in _blocks(path):
                ids = np.frombuffer(block, dtype, count=len(block) // dtype.itemsize)
                bad = np.flatnonzero((ids < 0) | (ids >= vocab))
                if bad.size:
                    where = seen + int(bad[0]) * dtype.itemsize
                    _expect(path, f"id at byte {where}", int(ids[bad[0]]), f"0 to {vocab - 1}")
                counts += np.bincount(ids, minlength=vocab)
                seen += len(block)
            for key in ("bin", "idx"):
                digest = hashlib.sha256()
                for block in _blocks(f"{self.prefix}.{key}"):
                    digest.update(block)
                _expect(f"{self.prefix}.{key}", "sha256", digest.hexdigest(), self.meta.sha256[key])
        if not np.array_equal(counts, self.token_counts):
            raise DataError(f"{self.prefix}.counts.npy: not the counts of {path}; rebuild the store with {BUILD}")


def _blocks(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            yield block


def _read_counts(path: Path, meta: StoreMeta) -> np.ndarray:
    raw = path.read_bytes()  # 8 bytes an id, a megabyte at most: small enough for its checksum at every open
    _expect(path, "sha256", hashlib.sha256(raw).hexdigest(), meta.sha256["counts"])
    counts = np.load(io.BytesIO(raw), allow_pickle=False)
    _expect(path, "shape", counts.shape, (meta.vocab_size,))
    _expect(path, "sum", int(counts.sum()), meta.tokens)
    return counts


def _map_index(path: Path, meta: StoreMeta) -> tuple[np.ndarray, np.ndarray]:
    """Sizes int32 (N,) and byte offsets int64 (N,), after the checks that need no look at the ids."""
    with open(path, "rb") as file:
        raw = file.read(HEADER.size).ljust(HEADER.size, b"\x00")
    magic, version, code, sequences, bounds = HEADER.unpack(raw)
    _expect(path, "magic", magic, MAGIC)
    _expect(path, "version", version, 1)
    _expect(path, "dtype code", code, DTYPE_CODES[meta.dtype])
    _expect(path, "number of sequences", sequences, meta.sequences)
    _expect(path, "number of document bounds", bounds, sequences + 1)
    _expect(path, "size in bytes", path.stat().st_size, HEADER.size + 12 * sequences + 8 * bounds)
    body = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))[HEADER.size :]
    sizes, offsets = body[: 4 * sequences].view("<i4"), body[4 * sequences : 12 * sequences].view("<i8")
    _expect(path, "sum of sizes", int(sizes.sum(dtype=np.int64)), meta.tokens)
    if sizes.min() < 1 or sizes.max() > meta.max_length:
        raise DataError(f"{path}: a size is not within 1 to {meta.max_length}; rebuild the store with {BUILD}")
    return sizes, offsets
