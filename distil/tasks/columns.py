"""Named columns of a file of rows: CSV, TSV, JSON lines, a JSON array, Parquet."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distil.errors import ConfigError, DataError, one_line
from distil.fields import nearest

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
csv.field_size_limit(2**31 - 1)
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Columns:
    """Columns by name, values as the file has them; ``lines`` is the line of each row, where the file has lines."""

    name: str
    values: dict[str, list[Any]]
    count: int
    lines: Sequence[int] = ()

    def place(self, row: int) -> str:
        """Where a row stands, for messages."""
        return f"{self.name}: line {self.lines[row]}" if self.lines else f"{self.name}: row {row + 1}"

    def column(self, name: str) -> list[Any]:
        """A column. Raises ConfigError, with the nearest name, where there is none of that name."""
        if name not in self.values:
            raise ConfigError(
                f"{self.name}: no column {name}{nearest(name, self.values)}; there are: {', '.join(self.values)}"
            )
        return self.values[name]

    def texts(self, name: str) -> tuple[str, ...]:
        """A column of text. Raises DataError for a value that is none."""
        values = self.column(name)
        for row, value in enumerate(values):
            if not isinstance(value, str):
                raise DataError(f"{self.place(row)}: {name} is {value!r}, not a text")
            if not value.isascii() and _SURROGATE.search(value):
                raise DataError(f"{self.place(row)}: {name} holds half a character (an unpaired surrogate); mend it")
        return tuple(values)


def read_columns(path: str | Path) -> Columns:
    """All of a file. Raises DataError, with file and line, for what is not as its suffix says."""
    path = Path(path)
    reader = {
        ".csv": _csv, ".tsv": _tsv, ".jsonl": _json_lines, ".json": _json_array, ".parquet": _parquet
    }.get(path.suffix.lower())  # fmt: skip
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if reader is None:
        raise DataError(f"{path}: of no known kind; name a {', '.join(SUFFIXES)} file")
    with readable(path):
        return reader(path)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Raise DataError for a file whose bytes cannot be had, or are no UTF-8."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); convert it") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({one_line(error.strerror or error)})") from error


def of_rows(
    name: str, header: Sequence[str], rows: Iterable[tuple[int, Sequence[str]]], wanted: Iterable[str] | None = None
) -> Columns:
    """Columns, all or those ``wanted``, of rows with their lines.

    Raises DataError for a row of another width, or a header without sense.
    """
    if not all(header) or len(set(header)) < len(header):
        raise DataError(f"{name}: the first line must name the columns, each once; it is {', '.join(header)[:200]!r}")
    chosen = [(i, []) for i, column in enumerate(header) if wanted is None or column in set(wanted)]
    lines: list[int] = []
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(f"{name}: line {line} has {len(row)} columns, not {len(header)}")
        for i, values in chosen:
            values.append(row[i])
        lines.append(line)
    return Columns(name, {header[i]: values for i, values in chosen}, len(lines), lines)


def lines_of(path: Path) -> list[str]:
    """The lines of a text file: ends are those of a line feed alone, a carriage return before it dropped."""
    text = path.read_bytes().decode("utf-8-sig")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def _csv(path: Path, delimiter: str = ",") -> Columns:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            return of_rows(str(path), header, ((reader.line_num, row) for row in reader if row))
        except csv.Error as error:
            raise DataError(f"{path}: line {reader.line_num}: {one_line(error)}; quote fields as CSV does") from error


def _tsv(path: Path) -> Columns:
    """With quotes as CSV has them, where the whole file is so; otherwise a quote is a character like any other.

    Both are usual. A field with a tab and a line feed in it would be two rows that a lone quote has swallowed.
    """
    try:
        found = _csv(path, "\t")
    except DataError:
        found = None
    if found and not any("\t" in v and "\n" in v for column in found.values.values() for v in column):
        return found
    lines = lines_of(path)
    rows = ((i, line.split("\t")) for i, line in enumerate(lines[1:], 2) if line)
    return of_rows(str(path), lines[0].split("\t") if lines else [], rows)


def _json_lines(path: Path) -> Columns:
    rows, lines = [], []
    for line, text in enumerate(lines_of(path), 1):
        if text.strip():
            rows.append(_json(text, f"{path}: line {line}"))
            lines.append(line)
    return _of_objects(str(path), rows, lines)


def _json_array(path: Path) -> Columns:
    rows = _json(path.read_bytes().decode("utf-8-sig"), str(path))
    if not isinstance(rows, list):
        raise DataError(f"{path}: is no array of objects, one a row; JSON lines end in .jsonl")
    return _of_objects(str(path), rows, ())


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is no JSON ({one_line(error)[:200]})") from error


def _of_objects(name: str, rows: list[Any], lines: Sequence[int]) -> Columns:
    header = list(rows[0]) if rows and isinstance(rows[0], dict) else []
    found = Columns(name, {}, len(rows), lines)
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or row.keys() != rows[0].keys():
            raise DataError(f"{found.place(i)} is no object with the fields of the first ({', '.join(header)})")
    found.values.update({column: [row[column] for row in rows] for column in header})
    return found


def _parquet(path: Path) -> Columns:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        return Columns(str(path), {n: table.column(n).to_pylist() for n in table.column_names}, table.num_rows)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path}: damaged, or no Parquet ({one_line(error)[:200]}); fetch it anew") from error
