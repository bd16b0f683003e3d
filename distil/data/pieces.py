"""Pieces of the input: some megabytes of text that are read, tokenised and stored as one.

Where one piece ends and the next begins depends on the input alone, so any number of workers can share the pieces, and
an interrupted build goes on with the first that it lacks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from distil.errors import DataError

PIECE_BYTES = 1 << 22
LINE_BYTES = 1 << 20  # a longer line of plain text is cut
ROW_BYTES = 1 << 26  # a longer row of JSON is refused
_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")


@dataclass(frozen=True)
class Piece:
    """One piece of an input; ``join`` says what a document is.

    ``data`` are the bytes of a text or .jsonl file from ``offset`` on, the texts of rows, or None for the bytes
    ``offset`` to ``end`` of the file ``name``, which whoever handles the piece then reads.
    """

    name: str
    kind: str  # "text", "jsonl" or "rows"
    join: str  # "lines" or "documents"
    offset: int
    end: int
    data: bytes | list[str] | None = None
    text_field: str = ""

    def documents(self) -> Iterator[list[str]]:
        """The documents, each as its texts: a text is tokenised, and cut into sequences, by itself.

        With ``join`` "lines" every line is a text. With "documents" a text is a row, or the lines between blank lines.
        Raises DataError for bytes that are not UTF-8, damaged rows and a missing text_field.
        """
        for document in self._units():
            lines = [line for raw in document.split("\n") if (line := raw.strip())]
            if lines:
                yield lines if self.join == "lines" else ["\n".join(lines)]

    def _units(self) -> Iterator[str]:
        """Rows, lines, or blocks between blank lines: what is held out as a whole."""
        if isinstance(self.data, list):
            yield from self.data
        elif self.kind == "jsonl":
            yield from self._rows(self._bytes())
        elif self.join == "lines":
            yield from self._text().split("\n")
        else:
            yield from re.split(r"\n[ \t\r]*\n", self._text())

    def _bytes(self) -> bytes:
        if self.data is not None:
            return self.data
        with open(self.name, "rb") as file:
            file.seek(self.offset)
            raw = file.read(self.end - self.offset)
        if len(raw) < self.end - self.offset:
            raise DataError(f"{self.name}: has become shorter while it was read; leave it alone and begin anew")
        return raw

    def _text(self) -> str:
        raw = self._bytes()
        try:
            return raw.decode("utf-8").removeprefix("\ufeff" if self.offset == 0 else "")
        except UnicodeDecodeError as error:
            raise self._not_utf8(raw, error, 0) from error

    def _rows(self, raw: bytes) -> Iterator[str]:
        at = 0
        for line in raw.split(b"\n"):
            try:
                row = json.loads(line) if line.strip() else None
            except UnicodeDecodeError as error:
                raise self._not_utf8(raw, error, at) from error
            except (ValueError, RecursionError) as error:
                raise DataError(f"{self.name}: the row at byte {self.offset + at} is not JSON ({error})") from error
            if line.strip():
                if not isinstance(row, dict):
                    raise DataError(f"{self.name}: the row at byte {self.offset + at} is no JSON object")
                yield from text_of(row, self.text_field, self.name)
            at += len(line) + 1

    def _not_utf8(self, raw: bytes, error: UnicodeDecodeError, at: int) -> DataError:
        place = at + error.start
        line = f"line {raw.count(10, 0, place) + 1}, " if self.offset == 0 else ""
        return DataError(
            f"{self.name}: {line}byte {self.offset + place} is not UTF-8 ({error.reason}); convert it, e.g. with iconv"
        )


def text_of(row: dict[str, object], text_field: str, name: str) -> Iterator[str]:
    """The text in a row, or nothing where it is null; DataError where there is no such column, or no text in it."""
    if text_field not in row:
        columns = ", ".join(sorted(row))[:200]
        raise DataError(f"{name}: no column {text_field!r}; its columns are {columns}: set --text_field")
    text = row[text_field]
    if text is None:
        return
    if not isinstance(text, str):
        raise DataError(f"{name}: column {text_field!r} holds {type(text).__name__}, not text")
    yield text


def ends(file: BinaryIO, size: int, kind: str, join: str, name: str) -> Iterator[int]:
    """Offsets at which the pieces of a file of ``size`` bytes end, the last at ``size``."""
    end = 0
    while end + PIECE_BYTES < size:
        last = end + PIECE_BYTES - 1

        def read(reach: int, last: int = last) -> bytes:
            file.seek(last)
            return file.read(reach)

        end = last + _boundary(read, kind, join, name)
        yield end
    if end < size:
        yield size


def streamed(stream: BinaryIO, kind: str, join: str, name: str) -> Iterator[tuple[int, bytes]]:
    """(offset, bytes) of the pieces of a stream, which end where ``ends`` would have them end in a file."""
    buffer, offset = bytearray(), 0

    def upto(wanted: int) -> None:
        while len(buffer) < wanted and (more := stream.read(wanted - len(buffer))):
            buffer.extend(more)

    def read(reach: int) -> bytes:
        upto(PIECE_BYTES - 1 + reach)
        return bytes(buffer[PIECE_BYTES - 1 : PIECE_BYTES - 1 + reach])

    while True:
        upto(PIECE_BYTES + 1)
        if not buffer:
            return
        end = len(buffer)
        if end > PIECE_BYTES:
            end = PIECE_BYTES - 1 + _boundary(read, kind, join, name)
        yield offset, bytes(buffer[:end])
        del buffer[:end]
        offset += end


def _boundary(read: Callable[[int], bytes], kind: str, join: str, name: str) -> int:
    """How many bytes belong to a piece from its last byte on, where ``read(n)`` gives the n bytes from there.

    Up to the end of its document or, where that is too far away, of its line, or of its last word.
    """
    limit = ROW_BYTES if kind == "jsonl" else LINE_BYTES
    reach = min(1 << 16, limit)
    while True:
        window = read(reach)
        if kind == "text" and join == "documents":
            if found := _BLANK_LINE.search(window):
                return found.end()
        elif (line := window.find(b"\n")) >= 0:
            return line + 1
        if len(window) < reach:
            return len(window)  # the end of the input
        if reach == limit:
            return _cut_within(window, kind, name)
        reach = min(4 * reach, limit)


def _cut_within(window: bytes, kind: str, name: str) -> int:
    """Where to cut what has no end in sight."""
    if kind == "jsonl":
        raise DataError(f"{name}: a row of more than {ROW_BYTES >> 20} MiB; split it, or give it as Parquet")
    if (line := window.find(b"\n")) >= 0:
        return line + 1
    if (word := window.rfind(b" ")) >= 0:
        return word + 1
    cut = len(window)
    while cut > 1 and window[cut - 1] & 0xC0 == 0x80:  # not within a character
        cut -= 1
    return max(1, cut - 1)
