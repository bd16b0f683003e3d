"""Rows of every kind of file are the same rows; what is broken is one line with file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from row_files import write

from distil.errors import ConfigError, DataError, one_line
from distil.tasks.columns import Columns, read_columns

ROWS = [
    {"text": "plain", "other": "x", "n": 1},
    {"text": 'a "quoted", word', "other": '"', "n": 0},
    {"text": '"all quoted"', "other": "", "n": 1},
    {"text": "two\nlines", "other": "comma, and\u2028odd\u0085ends", "n": 2},
    {"text": "tab\there", "other": "日本 – ü", "n": 10},
    {"text": "", "other": " spaces ", "n": -3},
]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_every_kind_has_the_same_rows(tmp_path, suffix):
    found = read_columns(write(tmp_path / f"a{suffix}", ROWS))
    assert found.texts("text") == tuple(row["text"] for row in ROWS)
    assert found.texts("other") == tuple(row["other"] for row in ROWS)
    assert list(map(int, found.column("n"))) == [row["n"] for row in ROWS]
    assert found.count == len(ROWS) and list(found.values) == list(ROWS[0])
    expected = {".csv": "line 7", ".tsv": "line 7", ".jsonl": "line 5", ".json": "row 5", ".parquet": "row 5"}
    assert found.place(4) == f"{tmp_path}/a{suffix}: {expected[suffix]}"


def raw(tmp_path: Path, text: str, name: str = "a.tsv") -> Columns:
    (tmp_path / name).write_bytes(text.encode())
    return read_columns(tmp_path / name)


def test_a_tsv_without_quoting_keeps_its_quotes(tmp_path):
    """As GLUE has it: quotes that do not balance say that none of them quotes."""
    found = raw(tmp_path, 'text\tn\n"so" he said\t1\n\n"alone\t0\r\n it\'s "fine"\t1\n')
    assert found.texts("text") == ('"so" he said', '"alone', ' it\'s "fine"')
    assert found.column("n") == ["1", "0", "1"] and list(found.lines) == [2, 4, 5]


def test_a_lone_quote_swallows_no_rows_of_a_tsv(tmp_path):
    """These two quotes would make a field with a line feed and a tab: two rows would be one."""
    found = raw(tmp_path, 'text\tn\n"open\t1\nclose"\t0\nmore\t1\n')
    assert found.texts("text") == ('"open', 'close"', "more") and found.column("n") == ["1", "0", "1"]


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    for name, text in (("a.csv", "text,n\nx,1\n"), ("a.tsv", 'text\tn\n"x\t1\n'), ("a.jsonl", '{"text": "x"}\n')):
        assert "text" in raw(tmp_path, "\ufeff" + text, name).values


def test_a_file_with_a_header_alone_is_empty(tmp_path):
    for name, text in (("a.csv", "text,n\n"), ("a.tsv", "text\tn"), ("a.jsonl", "\n"), ("a.json", "[]")):
        assert raw(tmp_path, text, name).count == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,n\nx,1\ny\n", "a.csv: line 3 has 1 columns, not 2"),
        ("a.csv", 'text,n\n"x" y,1\n', "a.csv: line 2: .* quote fields as CSV does"),
        ("a.csv", 'text,n\n"x,1\ny,2\n', "a.csv: line 3: unexpected end of data"),
        ("a.csv", "text,text\nx,1\n", "a.csv: the first line must name the columns, each once"),
        ("a.csv", "text,\nx,1\n", "a.csv: the first line must name the columns"),
        ("a.tsv", "text\tn\nx\t1\ny\t1\t2\n", "a.tsv: line 3 has 3 columns, not 2"),
        ("a.jsonl", '{"t": 1}\n{"t": }\n', "a.jsonl: line 2: is no JSON"),
        ("a.jsonl", '{"t": 1}\n\n[2]\n', r"a.jsonl: line 3 is no object with the fields of the first \(t\)"),
        ("a.jsonl", '{"t": 1}\n{"u": 1}\n', "a.jsonl: line 2 is no object with the fields"),
        ("a.jsonl", "[" * 100_000, "a.jsonl: line 1: is no JSON"),
        ("a.json", '{"t": 1}', "a.json: is no array of objects"),
        ("a.json", "[1, 2]", "a.json: row 1 is no object"),
        ("a.parquet", "PAR1 not", "a.parquet: damaged, or no Parquet"),
        ("a.xlsx", "", "a.xlsx: of no known kind; name a .csv, .tsv, .jsonl, .json, .parquet file"),
        ("a", "", "a: of no known kind"),
        ("a.csv", "text,n\n\udcff,1\n", "a.csv: is not UTF-8"),
        ("a.jsonl", '"\udcff"', "a.jsonl: is not UTF-8"),
    ],
)
def test_what_is_broken_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=message) as raised:
        read_columns(tmp_path / name)
    assert str(raised.value) == one_line(raised.value) and len(str(raised.value)) < 400


def test_what_is_not_there_is_one_line(tmp_path):
    with pytest.raises(DataError, match="b.csv: no such file"):
        read_columns(tmp_path / "b.csv")
    found = read_columns(write(tmp_path / "a.csv", ROWS))
    with pytest.raises(ConfigError, match=r"no column txt \(did you mean text\?\); there are: text, other, n"):
        found.column("txt")


def test_a_text_is_a_text(tmp_path):
    for suffix, place in ((".jsonl", "line 2"), (".parquet", "row 2")):
        found = read_columns(write(tmp_path / f"a{suffix}", [{"text": "x"}, {"text": None}]))
        with pytest.raises(DataError, match=f"{place}: text is None, not a text"):
            found.texts("text")
    with pytest.raises(DataError, match="line 1: n is 1, not a text"):
        read_columns(write(tmp_path / "b.jsonl", ROWS)).texts("n")
