"""Grows a store's ids and sizes in a draft, and seals them: index, order, counts, checksums and sidecar."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

import numpy as np

from distil.data.draft import Draft, write_synced
from distil.data.store import CHUNK, digest_of, read_header, refusing, survey
from distil.data.store_meta import DTYPE_CODES, HEADER, MAGIC, Origin, StoreMeta, dtype_for, expect, order_dtype
from distil.errors import DataError

ENTRIES = 1 << 19  # sizes handled at a time


class StoreWriter:
    """Appends sequences to the store ``name`` of a draft, from a position on that an earlier try reached.

    Memory stays flat. Raises DataError on unusable ids and a disk that cannot be written.
    """

    def __init__(self, draft: Draft, name: str, origin: Origin, position: tuple[int, int] = (0, 0)) -> None:
        """``position`` is (tokens, sequences), as ``sync`` returned it; what was written beyond is dropped."""
        self._draft, self._name, self._origin = draft, name, origin
        self.tokens, self.sequences = position
        self._dtype = np.dtype(dtype_for(origin.vocab_size)).newbyteorder("<")
        self._bin = self._opened(".bin", self.tokens * self._dtype.itemsize)
        self._sizes = self._opened(".sizes", self.sequences * 4)

    def _opened(self, suffix: str, size: int) -> BinaryIO:
        path = self._draft.path(self._name + suffix)
        if size and not path.exists():
            raise DataError(f"{path}: missing, though its journal speaks of it; remove {self._draft.folder}")
        with self._draft.writing():
            file = open(path, "r+b" if size else "w+b")  # noqa: SIM115 - closed by close
            if os.fstat(file.fileno()).st_size < size:
                raise DataError(f"{path}: shorter than its journal says; remove {self._draft.folder} and build anew")
            file.truncate(size)
            file.seek(size)
        return file

    def append(self, ids: np.ndarray, sizes: np.ndarray) -> None:
        """Append sequences that lie back to back in ``ids`` (sum of sizes,), of ``sizes`` (B,)."""
        if not sizes.size:
            return
        vocab, longest = self._origin.vocab_size, self._origin.max_length
        assert sizes.sum(dtype=np.int64) == ids.size
        if sizes.min() < 1 or sizes.max() > longest:
            raise DataError(f"{self._name}: a sequence of {sizes.min()} to {sizes.max()} ids; 1 to {longest} fit")
        if ids.min() < 0 or ids.max() >= vocab:
            raise DataError(f"{self._name}: ids {ids.min()} to {ids.max()} exceed 0 to {vocab - 1}, the vocabulary")
        with self._draft.writing():
            self._bin.write(ids.astype(self._dtype, copy=False).tobytes())
            self._sizes.write(sizes.astype("<i4", copy=False).tobytes())
        self.tokens += ids.size
        self.sequences += sizes.size

    def sync(self) -> tuple[int, int]:
        """Wait until the disk has all that was appended; returns the position, for a later try."""
        with self._draft.writing():
            for file in (self._bin, self._sizes):
                file.flush()
                os.fsync(file.fileno())
        return self.tokens, self.sequences

    def seal(self) -> StoreMeta:
        """Write everything else that makes a store; nothing can be appended any more."""
        self.sync()
        self.close()
        base = str(self._draft.path(self._name))
        with self._draft.writing():
            with open(base + ".idx", "wb") as index:
                for block in _index(base + ".sizes", self.sequences, self._dtype.itemsize):
                    index.write(block)
                index.flush()
                os.fsync(index.fileno())
            return seal(base + ".bin", base + ".idx", base, self._origin)

    def close(self) -> None:
        """Close the files; the draft keeps them."""
        with refusing(self._name, "write", "free some space"):
            self._bin.close()
            self._sizes.close()


def seal(bin_path: str, idx_path: str, out: str, origin: Origin) -> StoreMeta:
    """Write order, counts and sidecar of the store in ``bin_path`` and ``idx_path`` as ``out``.*, and sync them.

    Reads both files whole, so that the checksums are of what the disk gave. Raises DataError where they do not fit
    each other, or hold an id beyond the vocabulary or a sequence beyond the longest.
    """
    dtype, sequences, bounds = read_header(Path(idx_path))
    if dtype == "uint16" and dtype_for(origin.vocab_size) != dtype:
        raise DataError(
            f"{idx_path}: {dtype} cannot hold the {origin.vocab_size} ids of tokenizer {origin.tokenizer['name']}; "
            "give the one that made them"
        )
    width = np.dtype(dtype).itemsize
    lengths: Counter[int] = Counter()
    at = 0
    for sizes, offsets in _sizes_and_offsets(idx_path, sequences):
        ends = at + np.cumsum(sizes.astype(np.int64) * width)
        if not np.array_equal(offsets, ends - sizes.astype(np.int64) * width) or sizes.min() < 0:
            raise DataError(f"{idx_path}: its offsets are not the sums of its sizes; make it anew")
        at = int(ends[-1])
        lengths.update(dict(zip(*(part.tolist() for part in np.unique(sizes, return_counts=True)), strict=True)))
    expect(bin_path, "size in bytes", os.path.getsize(bin_path), at)
    del lengths[0]
    if not lengths:
        raise DataError(f"{bin_path}: a store needs at least one sequence; give it some text")
    if max(lengths) > origin.max_length:
        raise DataError(f"{idx_path}: a sequence of {max(lengths)} ids; {origin.max_length} fit")
    counts, bin_digest = survey(bin_path, np.dtype(dtype), origin.vocab_size)
    pairs = [list(pair) for pair in sorted(lengths.items())]
    _write_order(out + ".order", idx_path, sequences, pairs)
    counts_file = io.BytesIO()
    np.save(counts_file, counts, allow_pickle=False)
    write_synced(Path(out + ".counts.npy"), counts_file.getvalue())
    digests = {"idx": idx_path, "order": out + ".order", "counts": out + ".counts.npy"}
    sha256 = {"bin": bin_digest, **{key: digest_of(path) for key, path in digests.items()}}
    meta = StoreMeta(**asdict(origin), dtype=dtype, sequences=sequences, tokens=at // width, bounds=bounds,
                     lengths=pairs, sha256=sha256)  # fmt: skip
    write_synced(Path(out + ".json"), meta.to_json().encode())
    return meta


def _index(sizes_path: str, sequences: int, width: int) -> Iterator[bytes]:
    """The blocks of an .idx file for the sizes in a file, of ids of ``width`` bytes; every sequence is a document."""
    yield HEADER.pack(MAGIC, 1, DTYPE_CODES["uint16" if width == 2 else "int32"], sequences, sequences + 1)
    for sizes in _entries(sizes_path, "<i4", 0, sequences):
        yield sizes.tobytes()
    offset = 0
    for sizes in _entries(sizes_path, "<i4", 0, sequences):
        ends = offset + np.cumsum(sizes * np.int64(width))
        yield (ends - sizes * np.int64(width)).astype("<i8").tobytes()
        offset = int(ends[-1])
    for start in range(0, sequences + 1, CHUNK):
        yield np.arange(start, min(start + CHUNK, sequences + 1), dtype="<i8").tobytes()


def sizes_of(idx_path: str, sequences: int) -> Iterator[np.ndarray]:
    """The sizes in an .idx file, int32, some at a time."""
    return _entries(idx_path, "<i4", HEADER.size, sequences)


def _sizes_and_offsets(idx_path: str, sequences: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    offsets = _entries(idx_path, "<i8", HEADER.size + 4 * sequences, sequences)
    yield from zip(sizes_of(idx_path, sequences), offsets, strict=True)


def _entries(path: str, dtype: str, offset: int, count: int) -> Iterator[np.ndarray]:
    """``count`` numbers from a byte of a file on, some at a time; read, not mapped, which would count as resident."""
    with open(path, "rb") as file:
        file.seek(offset)
        for start in range(0, count, ENTRIES):
            yield np.fromfile(file, dtype, count=min(ENTRIES, count - start))


def _write_order(path: str, idx_path: str, sequences: int, lengths: list[list[int]]) -> None:
    """A counting sort on disk: each run of a length goes to where that length's part of the file has grown to."""
    dtype = order_dtype(sequences).newbyteorder("<")
    starts = np.cumsum([0, *(count for _, count in lengths)])
    next_at = {length: int(start) * dtype.itemsize for (length, _), start in zip(lengths, starts[:-1], strict=True)}
    with open(path, "w+b") as file:
        file.truncate(int(starts[-1]) * dtype.itemsize)
        first = 0
        for sizes in sizes_of(idx_path, sequences):
            by_length = np.argsort(sizes, kind="stable")
            kinds, begins = np.unique(sizes[by_length], return_index=True)
            for length, numbers in zip(kinds.tolist(), np.split(first + by_length, begins[1:]), strict=True):
                if length:
                    data = numbers.astype(dtype).tobytes()
                    file.seek(next_at[length])
                    file.write(data)
                    next_at[length] += len(data)
            first += sizes.size
        file.flush()
        os.fsync(file.fileno())
