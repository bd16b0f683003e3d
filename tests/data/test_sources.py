"""Inputs: files by pattern, compressed or not, rows, data sets; and what is refused at once."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path

import datasets
import pyarrow
import pytest

from distil.data import pieces, sources
from distil.data.sources import Source, dataset, files
from distil.errors import DataError

LINES = [f"line {i} of a text that is compressed" for i in range(500)]


def texts(found: list[Source]) -> list[str]:
    return [text for source in found for p in source.pieces() for document in p.documents() for text in document]


def compress(path: Path, data: bytes) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :]))  # two members
    elif path.suffix == ".bz2":
        path.write_bytes(bz2.compress(data))
    else:
        with pyarrow.output_stream(str(path), compression="zstd") as stream:
            stream.write(data)
    return path


def test_text_lines(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffcafé\r\n\n  \n two words \nlast".encode())
    (tmp_path / "b").write_bytes(b"")
    assert texts(files([tmp_path / "a.txt", tmp_path / "b"])) == ["café", "two words", "last"]


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2"])
@pytest.mark.parametrize("kind", [".txt", ".jsonl"])
def test_compressed_files_have_the_pieces_of_plain_ones(tmp_path, monkeypatch, suffix, kind):
    monkeypatch.setattr(pieces, "PIECE_BYTES", 1000)
    rows = LINES if kind == ".txt" else [json.dumps({"text": line}) for line in LINES]
    plain = tmp_path / f"a{kind}"
    plain.write_text("\n".join(rows) + "\n")
    packed = compress(tmp_path / f"a{kind}{suffix}", plain.read_bytes())
    assert texts(files([packed])) == texts(files([plain])) == LINES
    spans = [[(p.offset, p.end) for p in files([path])[0].pieces()] for path in (plain, packed)]
    assert spans[0] == spans[1] and len(spans[0]) > 10
    skipped = list(files([packed])[0].pieces(skip=7))
    assert [(p.offset, p.end) for p in skipped] == spans[0][7:]


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2"])
def test_damaged_compression_is_one_error(tmp_path, suffix):
    path = compress(tmp_path / f"a.txt{suffix}", "\n".join(LINES).encode())
    whole = path.read_bytes()
    for data in (whole[:-10], b"plain text, no compression\n", whole[: len(whole) // 2]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"a\.txt{suffix}: "):
            texts(files([path]))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".json"])
def test_rows(tmp_path, suffix):
    columns = {"body": ["first text", " second ", "", None, "third\nfourth"], "n": [1, 2, 3, 4, 5]}
    path = tmp_path / f"r{suffix}"
    rows = [{"body": b, "n": n} for b, n in zip(*columns.values(), strict=True)]
    if suffix == ".parquet":
        datasets.Dataset.from_dict(columns).to_parquet(path)
    else:
        path.write_text(json.dumps(rows) if suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))
    assert texts(files([path], "body")) == ["first text", "second", "third", "fourth"]
    assert texts(files([path], "body", "documents")) == ["first text", "second", "third\nfourth"]
    with pytest.raises(DataError, match=rf"r{suffix}: no column 'text'; its columns are body, n"):
        texts(files([path]))
    with pytest.raises(DataError, match="holds int, not text"):
        texts(files([path], "n"))
    (tmp_path / f"bad{suffix}").write_bytes(b'{"text": "a"}\n{"text": \n')
    with pytest.raises(DataError, match=rf"bad{suffix}: (cannot be read|the row at byte 14 is not JSON)"):
        texts(files([tmp_path / f"bad{suffix}"]))
    (tmp_path / f"none{suffix}").write_bytes(b"")
    assert texts(files([tmp_path / f"none{suffix}"])) == []


@pytest.mark.parametrize("streaming", [True, False])
def test_a_data_set(tmp_path, streaming, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(sources, "PIECE_BYTES", 100)
    folder = tmp_path / "set"
    folder.mkdir()
    datasets.Dataset.from_dict({"body": LINES}).to_parquet(folder / "train.parquet")
    source = dataset(str(folder), None, "train", "body", streaming=streaming)
    assert texts([source]) == LINES
    found = list(source.pieces())
    assert len(found) > 100 and [p.documents() and p.offset for p in source.pieces(5)] == [p.offset for p in found[5:]]
    assert source.state()[0] == str(folder)
    with pytest.raises(DataError, match=r"set: cannot be read .*check its name, split"):
        texts([dataset(str(folder), None, "nosuch", "body", streaming=streaming)])


def test_patterns(tmp_path):
    for name in ("b.txt", "a.txt", "sub/c.txt", "d.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    named = [Path(s.name).name for s in files([f"{tmp_path}/*.txt", tmp_path / "d.md", f"{tmp_path}/sub/../a.txt"])]
    assert named == ["a.txt", "b.txt", "d.md"]  # a pattern's in order, each file once
    assert [Path(s.name).name for s in files([f"{tmp_path}/**/*.txt"])] == ["a.txt", "b.txt", "c.txt"]
    (tmp_path / "odd[1].txt").write_text("x")
    assert len(files([tmp_path / "odd[1].txt"])) == 1  # a file of that name is meant before a pattern


@pytest.mark.parametrize(
    ("name", "said"),
    [("missing.txt", "no such file"), ("*.nothing", "no file fits"), ("folder", r"is a folder; name the files in it")],
)
def test_what_is_no_file_is_refused_at_once(tmp_path, name, said):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=said):
        files([tmp_path / name])


def test_a_file_that_vanishes_is_one_error(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n")
    source = files([path])[0]
    state = source.state()
    path.unlink()
    with pytest.raises(DataError, match=r"a\.txt: cannot be read \(No such file"):
        list(source.pieces())
    path.write_text("two\n")
    assert source.state() != state  # another file of that name is another input
