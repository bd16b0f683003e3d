"""What text is binarised: files by pattern, compressed or not, and data sets of the hub, as a sequence of pieces."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from distil.data.pieces import PIECE_BYTES, Piece, ends, streamed, text_of
from distil.data.store import refusing
from distil.errors import DataError, one_line
from distil.hub import pinned

_COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_RECORDS = {".json": "json", ".parquet": "parquet"}


@dataclass(frozen=True)
class Source:
    """A file, or a data set of the hub where ``dataset`` holds the arguments of ``datasets.load_dataset``."""

    name: str
    join: str = "lines"
    text_field: str = "text"
    dataset: tuple[tuple[str, Any], ...] = ()

    def state(self) -> list[Any]:
        """What tells whether it is still the same: how it is read, and size and time of change of a file."""
        how = [self.name, self.join, self.text_field]
        if self.dataset:
            return [*how, *map(list, self.dataset)]
        with refusing(self.name, "read", "check the file and its permissions"):
            status = os.stat(self.name)
        return [*how, status.st_size, status.st_mtime_ns]

    def pieces(self, skip: int = 0) -> Iterator[Piece]:
        """All pieces but the first ``skip``. Raises DataError for what cannot be read."""
        try:
            yield from islice(self._pieces(), skip, None)
        except OSError as error:
            reason = one_line(error.strerror or error)
            raise DataError(f"{self.name}: cannot be read ({reason}); check the file and its permissions") from error

    def _pieces(self) -> Iterator[Piece]:
        stem, suffix = os.path.splitext(self.name)
        compression = _COMPRESSED.get(suffix.lower())
        inner = os.path.splitext(stem)[1].lower() if compression else suffix.lower()
        if self.dataset or inner in _RECORDS:
            yield from self._rows(_RECORDS.get(inner, ""))
            return
        how = {"kind": "jsonl" if inner == ".jsonl" else "text", "join": self.join}
        more = {**how, "text_field": self.text_field}
        if compression:
            with _decompressed(self.name, compression) as stream:
                for offset, data in streamed(stream, **how, name=self.name):
                    yield Piece(self.name, offset=offset, end=offset + len(data), data=data, **more)
            return
        start = 0
        with open(self.name, "rb") as file:
            for end in ends(file, os.fstat(file.fileno()).st_size, **how, name=self.name):
                yield Piece(self.name, offset=start, end=end, **more)
                start = end

    def _rows(self, reader: str) -> Iterator[Piece]:
        if not self.dataset and not os.path.getsize(self.name):
            return  # the reader of records fails on an empty file, which merely holds no text
        rows, first, size, count = [], 0, 0, 0
        for text in _texts(self.name, self.text_field, dict(self.dataset) or _of_file(self.name, reader)):
            rows.append(text)
            size += len(text) + 1
            count += 1
            if size >= PIECE_BYTES:
                yield Piece(self.name, "rows", self.join, first, count, rows)
                rows, first, size = [], count, 0
        if rows:
            yield Piece(self.name, "rows", self.join, first, count, rows)


def files(patterns: Sequence[str | Path], text_field: str = "text", join: str = "lines") -> list[Source]:
    """Sources of the files that the patterns name, in the order given, those of a pattern sorted.

    Text is UTF-8, a document a line or between blank lines; .jsonl, .json and .parquet hold a document a row; .gz, .zst
    and .bz2 are decompressed. Raises DataError at once for what is no file, or not to be read.
    """
    names: list[str] = []
    for pattern in map(str, patterns):
        found = (
            [pattern] if os.path.exists(pattern) else sorted(filter(os.path.isfile, glob.glob(pattern, recursive=True)))
        )
        if not found:
            kind = "no file fits" if glob.has_magic(pattern) else "no such file"
            raise DataError(f"{pattern}: {kind}; name text, .jsonl or .parquet files")
        names += found
    first: dict[str, str] = {}  # each file once, however it is spelt
    for name in names:
        first.setdefault(os.path.abspath(name), name)
    names = list(first.values())
    for name in names:
        if os.path.isdir(name):
            raise DataError(f"{name}: is a folder; name the files in it, '{name}/*' for all of them")
        if not os.path.isfile(name):
            raise DataError(f"{name}: is no regular file, which could be read again; write it to one")
        if not os.access(name, os.R_OK):
            raise DataError(f"{name}: cannot be read; check its permissions")
    return [Source(name, join, text_field) for name in names]


def dataset(
    name: str, config: str | None, split: str, text_field: str = "text", join: str = "lines", streaming: bool = True
) -> Source:
    """Source of one split of a data set, NAME or NAME@REVISION on the hub, or a folder; downloaded or streamed."""
    plain, revision = pinned(name)
    arguments = {"path": plain, "name": config, "split": split, "streaming": streaming}
    if revision is not None:
        arguments["revision"] = revision
    return Source(name, join, text_field, tuple(arguments.items()))


def _of_file(name: str, reader: str) -> dict[str, Any]:
    return {"path": reader, "data_files": [os.path.abspath(name)], "split": "train", "streaming": True}


@contextmanager
def _decompressed(name: str, compression: str) -> Iterator[BinaryIO]:
    import pyarrow

    try:
        with pyarrow.input_stream(name, compression=compression) as stream:
            yield stream
    except pyarrow.ArrowException as error:
        raise DataError(f"{name}: damaged, or no {compression} ({one_line(error)}); fetch it anew") from error


def _texts(name: str, text_field: str, arguments: dict[str, Any]) -> Iterator[str]:
    import datasets

    # Its log would repeat on standard error what the DataError below says in one line.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        for row in datasets.load_dataset(**arguments):
            yield from text_of(row, text_field, name)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - each file format and each way to the hub fails in its own way
        reason = f"{type(error).__name__}: {error}"[:300]
        raise DataError(f"{name}: cannot be read ({reason}); check its name, split and contents") from error
