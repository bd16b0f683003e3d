"""Pieces tile the input, end where documents end, and are the same from a file and from a stream."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.data import pieces
from distil.data.pieces import Piece, ends, streamed
from distil.errors import DataError

PARTS = ["word ", "é", "日本 ", "x", "\n", "\n\n", "\n \t\n", "\r\n", "\r\n\r\n"]
TEXT = st.lists(st.sampled_from(PARTS), max_size=120).map("".join)
JOIN = st.sampled_from(["lines", "documents"])


@pytest.fixture(scope="module", autouse=True)
def small():
    """Pieces of some bytes, so that short texts have many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "PIECE_BYTES", 32)
        patch.setattr(pieces, "LINE_BYTES", 64)
        patch.setattr(pieces, "ROW_BYTES", 128)
        yield


def cut(data: bytes, kind: str, join: str) -> list[Piece]:
    """The pieces of a stream of these bytes, after a look that those of a file are the same."""
    found = list(streamed(io.BytesIO(data), kind, join, "f"))
    assert b"".join(part for _, part in found) == data
    assert [offset + len(part) for offset, part in found] == list(ends(io.BytesIO(data), len(data), kind, join, "f"))
    return [Piece("f", kind, join, offset, offset + len(part), part, "text") for offset, part in found]


def texts(found: list[Piece]) -> list[list[str]]:
    return [document for piece in found for document in piece.documents()]


def whole(data: bytes, kind: str, join: str) -> list[list[str]]:
    return list(Piece("f", kind, join, 0, len(data), data, "text").documents())


@settings(max_examples=300, deadline=None)
@given(text=TEXT, join=JOIN)
def test_pieces_tile_the_text_and_cut_no_character(text, join):
    for piece in cut(text.encode(), "text", join):
        piece.data.decode()  # raises within a character
        assert 0 < len(piece.data) <= 32 + 64


@settings(max_examples=300, deadline=None)
@given(text=st.lists(st.sampled_from(["a word", "é é", "x"]), max_size=60).map("\n".join))
def test_lines_are_those_of_the_whole(text):
    assert texts(cut(text.encode(), "text", "lines")) == whole(text.encode(), "text", "lines")


@settings(max_examples=300, deadline=None)
@given(documents=st.lists(st.lists(st.sampled_from(["a word", "é é", "x"]), min_size=1, max_size=5), max_size=30),
       blank=st.sampled_from(["\n\n", "\n \n", "\r\n\r\n", "\n\t\n\n"]))  # fmt: skip
def test_documents_are_those_of_the_whole(documents, blank):
    # None is longer than the 64 bytes in which an end of document is looked for.
    data = blank.join("\n".join(lines) for lines in documents).encode()
    assert texts(cut(data, "text", "documents")) == [["\n".join(lines)] for lines in documents]
    assert whole(data, "text", "documents") == [["\n".join(lines)] for lines in documents]


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.text(max_size=8), max_size=40), join=JOIN)
def test_rows_are_those_of_the_whole(rows, join):
    # Eight characters are up to 96 in JSON's escapes: with the rest of a row less than the 128 bytes that it may have.
    data = "".join(json.dumps({"text": row}) + "\n" for row in rows).encode()
    assert texts(cut(data, "jsonl", join)) == whole(data, "jsonl", join)
    wanted = [[line.strip() for line in row.split("\n") if line.strip()] for row in rows]
    wanted = [lines if join == "lines" else ["\n".join(lines)] for lines in wanted if lines]
    assert whole(data, "jsonl", join) == wanted


def test_what_has_no_end_is_cut_at_a_line_a_word_or_a_character():
    assert [p.end for p in cut(b"a" * 20 + b"\n" + b"b" * 20 + b"\n" + b"c" * 90, "text", "documents")] == [42, 132]
    assert [p.end for p in cut(b"five " * 40, "text", "lines")] == [95, 190, 200]
    assert [p.end for p in cut("é".encode() * 100, "text", "lines")] == [94, 188, 200]
    with pytest.raises(DataError, match="f: a row of more than 0 MiB; split it"):
        cut(b'{"text": "' + b"a" * 200 + b'"}\n', "jsonl", "lines")


def test_a_byte_order_mark_is_no_text():
    assert whole("\ufeffone\ntwo".encode(), "text", "lines") == [["one"], ["two"]]
    later = Piece("f", "text", "lines", 32, 40, "\ufeffone".encode())
    assert list(later.documents()) == [["\ufeffone"]]  # within a text it is a character like any other


def test_lines_of_a_row_are_texts_or_one_document():
    row = [json.dumps({"text": " one \n\n two\r\n"}).encode()]
    assert whole(row[0], "jsonl", "lines") == [["one", "two"]]
    assert whole(row[0], "jsonl", "documents") == [["one\ntwo"]]


def test_other_line_separators_end_no_line():
    assert whole("a\x0cb\u2028c\x85d\ne".encode(), "text", "lines") == [["a\x0cb\u2028c\x85d"], ["e"]]


def test_a_file_is_read_by_whoever_handles_the_piece(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(b"one\ntwo\nthree\n")
    assert list(Piece(str(path), "text", "lines", 4, 8).documents()) == [["two"]]
    with pytest.raises(DataError, match="has become shorter while it was read"):
        list(Piece(str(path), "text", "lines", 8, 15).documents())


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (b"one\n\nna\xefve\n", "text", "f: line 3, byte 7 is not UTF-8"),
        (b'{"text": "a"}\n{"text": "na\xefve"}\n', "jsonl", "f: line 2, byte 26 is not UTF-8"),
        (b'{"text": "a"}\n{"text": \n', "jsonl", "f: the row at byte 14 is not JSON"),
        (b'{"text": "a"}\n[1]\n', "jsonl", "f: the row at byte 14 is no JSON object"),
        (b'{"body": "a", "n": 1}\n', "jsonl", "f: no column 'text'; its columns are body, n: set --text_field"),
        (b"[" * 100_000, "jsonl", "f: the row at byte 0 is not JSON"),
        (b'{"text": 3}\n', "jsonl", "f: column 'text' holds int, not text"),
    ],
)
def test_damage_names_the_file_and_the_place(data, kind, said):
    with pytest.raises(DataError, match=said.replace("(", r"\(")):
        whole(data, kind, "lines")


def test_no_text_in_a_row_is_no_document():
    assert whole(b'{"text": null}\n{"text": ""}\n\n{"text": " "}\n{"text": "a"}', "jsonl", "lines") == [["a"]]
    assert cut(b"", "text", "lines") == [] and Path("f").exists() is False
