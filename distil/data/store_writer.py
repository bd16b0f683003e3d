"""Builds a token store: under temporary names, put in place when whole."""

from __future__ import annotations

import hashlib
import io
import os
import secrets
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from distil.data.store import CHUNK, DTYPE_CODES, HEADER, MAGIC, SUFFIXES, StoreMeta, dtype_for, refusing
from distil.errors import DataError


class StoreWriter:
    """Builds a store under temporary names and puts it in place when its ``with`` block ends without an error.

    Memory stays flat but for 4 bytes a sequence. Raises DataError on unusable ids, an output that exists already
    (unless ``overwrite``) and a disk that cannot be written.
    """

    def __init__(
        self,
        prefix: str | Path,
        *,
        tokenizer_name: str,
        tokenizer_fingerprint: str,
        special_ids: dict[str, int],
        vocab_size: int,
        max_length: int,
        overwrite: bool = False,
    ) -> None:
        self.prefix, self._overwrite = str(Path(prefix)), overwrite
        self._origin = {
            "tokenizer": {"name": tokenizer_name, "fingerprint": tokenizer_fingerprint},
            "special_ids": dict(special_ids),
            "vocab_size": vocab_size,
            "dtype": dtype_for(vocab_size),
            "max_length": max_length,
        }
        self._dtype = np.dtype(dtype_for(vocab_size)).newbyteorder("<")
        self._counts = np.zeros(vocab_size, dtype=np.int64)
        self._sizes = array("i")
        self._digest = hashlib.sha256()
        self._bin: io.BufferedWriter | None = None
        # Process ids repeat across the nodes that share a file system, hence the random part.
        path = Path(prefix)
        self._temporary = str(path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}"))
        taken = next((prefix for suffix in SUFFIXES if os.path.exists(prefix := self.prefix + suffix)), None)
        if taken and not overwrite:
            self._refuse_taken(taken)

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                with refusing(self.prefix, "write", "free some space, or choose another --out"):
                    self._commit()
        finally:
            if self._bin is not None:
                self._bin.close()
            for suffix in SUFFIXES:
                Path(self._temporary + suffix).unlink(missing_ok=True)

    @property
    def sequences(self) -> int:
        """Sequences appended so far."""
        return len(self._sizes)

    @property
    def tokens(self) -> int:
        """Ids appended so far."""
        return int(self._counts.sum())

    def append(self, ids: Sequence[int] | np.ndarray) -> None:
        """Append one sequence of ids, (length,)."""
        self.append_many([ids])

    def append_many(self, sequences: Sequence[Sequence[int] | np.ndarray]) -> None:
        """Append sequences of ids; cheaper than one by one. Raises DataError if any is empty, too long or no id."""
        if not sequences:
            return
        sizes = np.fromiter(map(len, sequences), dtype=np.int64, count=len(sequences))
        vocab, longest = self._origin["vocab_size"], self._origin["max_length"]
        if sizes.min() < 1 or sizes.max() > longest:
            raise DataError(f"{self.prefix}: a sequence of {sizes.min()} to {sizes.max()} ids; 1 to {longest} fit")
        ids = np.concatenate(sequences, dtype=np.int64, casting="same_kind")
        if ids.min() < 0 or ids.max() >= vocab:
            raise DataError(f"{self.prefix}: ids {ids.min()} to {ids.max()} exceed 0 to {vocab - 1}, the vocabulary")
        data = ids.astype(self._dtype).tobytes()
        with refusing(self.prefix, "write", "free some space, or choose another --out"):
            if self._bin is None:  # as late as this, so that an input without a sequence leaves nothing behind
                Path(self.prefix).parent.mkdir(parents=True, exist_ok=True)
                self._bin = open(self._temporary + ".bin", "xb")  # noqa: SIM115 - closed in __exit__
            self._bin.write(data)
        self._digest.update(data)
        self._counts += np.bincount(ids, minlength=vocab)
        self._sizes.frombytes(sizes.astype(np.int32).tobytes())

    def _commit(self) -> None:
        if self._bin is None:
            raise DataError(f"{self.prefix}: a store needs at least one sequence; give it some text")
        _sync(self._bin)
        counts = io.BytesIO()
        np.save(counts, self._counts, allow_pickle=False)
        checksums = {"bin": self._digest.hexdigest()}
        checksums["idx"] = self._write(".idx", _index(np.frombuffer(self._sizes, np.int32), self._dtype.itemsize))
        checksums["counts"] = self._write(".counts.npy", [counts.getvalue()])
        meta = StoreMeta(**self._origin, sequences=self.sequences, tokens=self.tokens, sha256=checksums)
        self._write(".json", [meta.to_json().encode()])
        self._claim()
        for suffix in SUFFIXES:
            os.replace(self._temporary + suffix, self.prefix + suffix)
        _sync_folder(self.prefix)

    def _claim(self) -> None:
        """Make sure that no sidecar vouches for the files about to be replaced, one by one."""
        if self._overwrite:
            Path(self.prefix + ".json").unlink(missing_ok=True)
            _sync_folder(self.prefix)
            return
        try:  # of two builders that both found the place free, one gets it
            os.close(os.open(self.prefix + ".bin", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            self._refuse_taken(self.prefix + ".bin")

    def _refuse_taken(self, path: str) -> None:
        raise DataError(f"{path}: exists already; choose another --out, or pass --overwrite to replace the store")

    def _write(self, suffix: str, blocks: Iterable[bytes]) -> str:
        digest = hashlib.sha256()
        with open(self._temporary + suffix, "xb") as file:
            for block in blocks:
                digest.update(block)
                file.write(block)
            _sync(file)
        return digest.hexdigest()


def _index(sizes: np.ndarray, width: int) -> Iterator[bytes]:
    """The blocks of an .idx file for sequences of ``sizes`` ids (N,), each of ``width`` bytes."""
    yield HEADER.pack(MAGIC, 1, DTYPE_CODES["uint16" if width == 2 else "int32"], sizes.size, sizes.size + 1)
    yield sizes.astype("<i4").tobytes()
    offset = 0
    for start in range(0, sizes.size, CHUNK):
        ends = offset + np.cumsum(sizes[start : start + CHUNK] * np.int64(width))
        yield (ends - sizes[start : start + CHUNK] * np.int64(width)).astype("<i8").tobytes()
        offset = int(ends[-1])
    for start in range(0, sizes.size + 1, CHUNK):
        yield np.arange(start, min(start + CHUNK, sizes.size + 1), dtype="<i8").tobytes()


def _sync(file: io.BufferedWriter) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(prefix: str) -> None:
    folder = os.open(os.path.dirname(prefix) or ".", os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
