"""The token store: sequences of token ids on disk, memory-mapped, and refused when damaged.

A store PREFIX is five files. The first two are Megatron-LM's indexed dataset.

    PREFIX.bin         ids of all sequences back to back: uint16 up to a vocabulary of 65,536, else int32
    PREFIX.idx         header; int32 sizes (N,); int64 byte offsets (N,); int64 document bounds
    PREFIX.order       numbers of all sequences that are not empty, shortest first: uint32, int64 from 2^32 on
    PREFIX.counts.npy  int64 (vocab_size,): how often each id occurs
    PREFIX.json        the sidecar: origin, sizes, lengths and checksums; written last, without it there is no store
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from distil.data.lengths import Lengths
from distil.data.store_meta import BUILD, CODE_DTYPES, HEADER, MAGIC, SUFFIXES, StoreMeta, expect, order_dtype
from distil.errors import DataError

CHUNK = 1 << 22  # bytes or entries handled at a time: flat memory whatever the size of the store


@contextmanager
def refusing(path: str | Path, what: str, remedy: str) -> Iterator[None]:
    """Turn the system's refusal to ``what`` a file, here or in a callee, into a DataError with the ``remedy``."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename or path}: cannot {what} ({error.strerror}); {remedy}") from error


class Store:
    """A read-only token store; its arrays are views of memory-mapped files, shared by all processes of a node."""

    def __init__(self, prefix: str, meta: StoreMeta, arrays: tuple[np.ndarray, ...]) -> None:
        """Use ``Store.open``; ``arrays`` are sizes (N,), byte offsets (N,), order, ids, and counts (V,)."""
        self.prefix, self.meta, self.lengths = prefix, meta, Lengths.of(meta.lengths)
        self.sizes, self._starts, self._order, self._ids, self.token_counts = arrays

    @classmethod
    def open(cls, prefix: str | Path) -> Store:
        """Map the store at ``prefix``, a path without extension; raises DataError on any sign of truncation.

        Takes the same time and memory whatever the store's size: nothing is read but headers and the counts.
        """
        prefix = str(Path(prefix))
        paths = {suffix: Path(prefix + suffix) for suffix in SUFFIXES}
        with refusing(prefix, "read", "check its permissions"):
            _refuse_incomplete(prefix, paths)
            meta = StoreMeta.from_json(paths[".json"].read_bytes(), paths[".json"])
            counts = _read_counts(paths[".counts.npy"], meta)
            sizes, starts = _map_index(paths[".idx"], meta)
            ids = _map(paths[".bin"], np.dtype(meta.dtype), meta.tokens)
            order = _map(paths[".order"], order_dtype(meta.sequences), sum(count for _, count in meta.lengths))
        end = int(starts[-1]) + int(sizes[-1]) * ids.itemsize
        expect(paths[".idx"], "end of the last sequence", end, meta.tokens * ids.itemsize)
        return cls(prefix, meta, (sizes, starts, order, ids, counts))

    def __len__(self) -> int:
        return self.meta.sequences

    @property
    def tokens(self) -> int:
        """Number of ids in the store."""
        return self.meta.tokens

    @property
    def bytes(self) -> int:
        """Bytes of its ids on disk."""
        return self.tokens * self._ids.itemsize

    @property
    def fingerprint(self) -> str:
        """16 hex digits that identify the store's contents and the tokenizer that made them."""
        parts = [*(self.meta.sha256[key] for key in ("bin", "idx", "counts")), self.meta.tokenizer["fingerprint"]]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]

    def at(self, places: np.ndarray) -> np.ndarray:
        """Numbers, int64, of the sequences at these places when all are laid out by length, shortest first."""
        return self._order[places].astype(np.int64)

    def sequence(self, i: int) -> np.ndarray:
        """Ids of sequence ``i``, int64 (length,)."""
        return self.gather(np.array([i]))[0]

    def gather(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sequences ``indices`` (B,) back to back: ids int64 (sum of lengths,) and lengths int32 (B,).

        Raises DataError where the files cannot be true: a size or an offset out of range, an id beyond the vocabulary.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size == 0:
            return np.empty(0, np.int64), np.empty(0, np.int32)
        if indices.min() < 0 or indices.max() >= len(self):
            self._damaged(".order", f"sequence {indices.max()} of {len(self)}")
        lengths = self.sizes[indices]
        starts = self._starts[indices] // self._ids.itemsize
        if lengths.min() < 0 or starts.min() < 0 or (starts + lengths).max() > self.tokens:
            self._damaged(".idx", f"a size or an offset among sequences {indices.min()} to {indices.max()}")
        if lengths.max() > self.meta.max_length:
            self._damaged(".idx", f"a size of {lengths.max()} beyond {self.meta.max_length}")
        ends = np.cumsum(lengths, dtype=np.int64)
        # Position p of the result, inside sequence b, is id starts[b] + (p - where b begins in the result).
        shift = np.repeat(starts - ends + lengths, lengths)
        where = shift + np.arange(shift.size)
        ids = self._ids[where]
        if ids.size and (ids.max() >= self.meta.vocab_size or ids.min() < 0):
            bad = int(np.flatnonzero((ids < 0) | (ids >= self.meta.vocab_size))[0])
            self._bad_id(int(where[bad]) * ids.itemsize, int(ids[bad]))
        return ids.astype(np.int64), lengths

    def _bad_id(self, at: int, found: int) -> None:
        expect(f"{self.prefix}.bin", f"id at byte {at}", found, f"0 to {self.meta.vocab_size - 1}")

    def _damaged(self, suffix: str, what: str) -> None:
        raise DataError(f"{self.prefix}{suffix}: damaged: {what} cannot be; see {BUILD} verify {self.prefix}")

    def check_tokenizer(self, fingerprint: str, name: str) -> None:
        """Raises DataError, naming both tokenizers, unless ``fingerprint`` is that of the store's tokenizer."""
        mine = self.meta.tokenizer
        if mine["fingerprint"] != fingerprint:
            raise DataError(
                f"{self.prefix}: built with tokenizer {mine['name']} ({mine['fingerprint'][:12]}), which gives other "
                f"ids than {name} ({fingerprint[:12]}); give --tokenizer {mine['name']}, or rebuild the store with "
                f"{BUILD}"
            )

    def verify(self) -> None:
        """Read the whole store; raises DataError on an id outside the vocabulary or a checksum that differs."""
        with refusing(self.prefix, "read", "check the disk"):
            counts, digest = survey(f"{self.prefix}.bin", np.dtype(self.meta.dtype), self.meta.vocab_size)
            expect(f"{self.prefix}.bin", "sha256", digest, self.meta.sha256["bin"])
            for key in ("idx", "order"):
                expect(f"{self.prefix}.{key}", "sha256", digest_of(f"{self.prefix}.{key}"), self.meta.sha256[key])
        if not np.array_equal(counts, self.token_counts):
            raise DataError(f"{self.prefix}.counts.npy: not the counts of {self.prefix}.bin; rebuild it with {BUILD}")


def _refuse_incomplete(prefix: str, paths: dict[str, Path]) -> None:
    """Raise DataError, saying what to do, unless all files of a store are there."""
    if not paths[".json"].is_file():
        if Path(f"{prefix}.building").is_dir():
            raise DataError(f"{prefix}: its build has not ended; repeat the command, it goes on where it was")
        if paths[".idx"].is_file() and paths[".bin"].is_file():
            raise DataError(
                f"{prefix}: a plain .bin/.idx pair, of Megatron-LM or GPT-NeoX perhaps, or half a store; "
                f"{BUILD} adopt {prefix} --tokenizer NAME_OR_DIR makes a store of it"
            )
        raise DataError(f"{prefix}: no token store here (no {paths['.json']}); build it: {BUILD} --out {prefix}")
    for path in paths.values():
        if not path.is_file():
            raise DataError(f"{path}: missing, though the store has its sidecar; rebuild the store with {BUILD}")


def survey(path: str | Path, dtype: np.dtype, vocab_size: int) -> tuple[np.ndarray, str]:
    """How often each id occurs in a .bin file, int64 (V,), and the file's sha256; DataError on an id that is none."""
    dtype = dtype.newbyteorder("<")
    counts, seen, digest = np.zeros(vocab_size, dtype=np.int64), 0, hashlib.sha256()
    for block in blocks(path):
        ids = np.frombuffer(block, dtype, count=len(block) // dtype.itemsize)
        bad = np.flatnonzero((ids < 0) | (ids >= vocab_size))
        if bad.size:
            at = seen + int(bad[0]) * dtype.itemsize
            expect(path, f"id at byte {at}", int(ids[bad[0]]), f"0 to {vocab_size - 1}")
        counts += np.bincount(ids, minlength=vocab_size)
        digest.update(block)
        seen += len(block)
    return counts, digest.hexdigest()


def digest_of(path: str | Path) -> str:
    """sha256 of a file, read in blocks."""
    digest = hashlib.sha256()
    for block in blocks(path):
        digest.update(block)
    return digest.hexdigest()


def blocks(path: str | Path) -> Iterator[bytes]:
    """A file's bytes in blocks of CHUNK."""
    with open(path, "rb") as file:
        while block := file.read(CHUNK):
            yield block


def _map(path: Path, dtype: np.dtype, entries: int) -> np.ndarray:
    expect(path, "size in bytes", path.stat().st_size, entries * dtype.itemsize)
    return np.asarray(np.memmap(path, dtype=dtype.newbyteorder("<"), mode="r"))


def _read_counts(path: Path, meta: StoreMeta) -> np.ndarray:
    raw = path.read_bytes()  # 8 bytes an id, a megabyte at most: small enough for its checksum at every open
    expect(path, "sha256", hashlib.sha256(raw).hexdigest(), meta.sha256["counts"])
    counts = np.load(io.BytesIO(raw), allow_pickle=False)
    expect(path, "shape", counts.shape, (meta.vocab_size,))
    expect(path, "sum", int(counts.sum()), meta.tokens)
    return counts


def read_header(path: Path) -> tuple[str, int, int]:
    """dtype, sequences and document bounds of an .idx file. Raises DataError unless it is one, and whole."""
    with open(path, "rb") as file:
        raw = file.read(HEADER.size).ljust(HEADER.size, b"\x00")
    magic, version, code, sequences, bounds = HEADER.unpack(raw)
    expect(path, "magic", magic, MAGIC)
    expect(path, "version", version, 1)
    if code not in CODE_DTYPES:
        expect(path, "dtype code", code, " or ".join(f"{known} ({dtype})" for known, dtype in CODE_DTYPES.items()))
    expect(path, "size in bytes", path.stat().st_size, HEADER.size + 12 * sequences + 8 * bounds)
    return CODE_DTYPES[code], sequences, bounds


def _map_index(path: Path, meta: StoreMeta) -> tuple[np.ndarray, np.ndarray]:
    """Sizes int32 (N,) and byte offsets int64 (N,), after the checks that need no look at the ids."""
    found = dict(zip(("dtype", "number of sequences", "number of document bounds"), read_header(path), strict=True))
    for (what, actual), wanted in zip(found.items(), (meta.dtype, meta.sequences, meta.bounds), strict=True):
        expect(path, what, actual, wanted)
    body = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))[HEADER.size :]
    return body[: 4 * meta.sequences].view("<i4"), body[4 * meta.sequences : 12 * meta.sequences].view("<i8")
