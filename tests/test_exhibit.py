"""What an evaluation leaves is read back as it was written, in order of names, and damage is told in one line."""

from __future__ import annotations

import json
import os

import pytest

from distil.errors import ConfigError, DataError
from distil.exhibit import FOLDER, PNG, Exhibit, Image, older_than, read_all, remove

TABLE = Exhibit(
    title="IMDb, 3 seeds", note="medians; ± is half the range", columns=("", "accuracy"),
    rows=(("teacher", "88.1 %"), ("élève <b>", "86.0 %")), command="launch/evaluate.py suite --model 'a b'",
    images=(Image(caption="guesses", png=PNG + b"\x00\xff"),),
)  # fmt: skip


def test_what_is_read_is_what_was_written_by_name(tmp_path):
    assert read_all(tmp_path) == {}
    TABLE.write(tmp_path, "suite")
    Exhibit(title="only words").write(tmp_path, "10-guess")
    assert list(read_all(tmp_path).items()) == [("10-guess", Exhibit(title="only words")), ("suite", TABLE)]


def test_a_second_one_takes_the_place_of_the_first_and_drafts_are_not_shown(tmp_path):
    TABLE.write(tmp_path, "suite")
    path = Exhibit(title="later").write(tmp_path, "suite")
    (path.parent / ".speed.json").write_text("{")
    assert path == tmp_path / FOLDER / "suite.json"
    assert read_all(tmp_path) == {"suite": Exhibit(title="later")}


def test_one_can_be_taken_out(tmp_path):
    TABLE.write(tmp_path, "suite")
    remove(tmp_path, "suite"), remove(tmp_path, "never")
    assert read_all(tmp_path) == {}
    (tmp_path / FOLDER / "odd.json").mkdir()
    with pytest.raises(DataError, match="cannot be removed"):
        remove(tmp_path, "odd")


def test_those_older_than_a_file_are_known(tmp_path):
    assert older_than(tmp_path, tmp_path / "results.json") == frozenset()
    for name, at in (("a", 10), ("b", 30)):
        os.utime(TABLE.write(tmp_path, name), (at, at))
    (tmp_path / "results.json").write_text("{}")
    os.utime(tmp_path / "results.json", (20, 20))
    assert older_than(tmp_path, tmp_path / "results.json") == {"a"}


@pytest.mark.parametrize("name", ["", "../suite", "Suite", ".suite", "a b", "a/b"])
def test_a_name_that_is_no_plain_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="names no evaluation"):
        TABLE.write(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_a_table_with_ragged_rows_or_another_kind_of_image_cannot_be_made():
    with pytest.raises(DataError, match="2 columns and a row of 1 cells"):
        Exhibit(title="t", columns=("", "a"), rows=(("x", "1"), ("y",)))
    with pytest.raises(DataError, match="no PNG"):
        Exhibit(title="t", images=(Image(caption="c", png=b"<svg onload=...>"),))


@pytest.mark.parametrize(
    "change",
    [
        {"title": 3}, {"columns": "ab"}, {"rows": [["x"]]}, {"rows": [["x", 1.0]]}, {"rows": None}, {"note": []},
        {"images": [{"caption": "c", "png": "not base64!"}]}, {"images": [{"caption": "c", "png": "AAAA"}]},
        {"images": ["x"]}, {"images": {}},
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(tmp_path, change):
    path = TABLE.write(tmp_path, "suite")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=r"suite\.json cannot be read"):
        read_all(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"title": "t"}'])
def test_what_is_no_such_file_is_named(tmp_path, text):
    TABLE.write(tmp_path, "suite").write_text(text)
    with pytest.raises(DataError, match=r"suite\.json cannot be read"):
        read_all(tmp_path)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / FOLDER).write_text("a file")
    with pytest.raises(DataError, match="cannot be written"):
        TABLE.write(tmp_path, "suite")
