"""Folders: IMDb's as unpacked, and those with files for each split."""

from __future__ import annotations

from pathlib import Path

import pytest
from row_files import write

from distil.errors import ConfigError, DataError
from distil.tasks.catalogue import find, own_task
from distil.tasks.reading import read

ROWS = [{"text": 'fine, "really"', "label": 1}, {"text": "dull", "label": 0}, {"text": "so so\n", "label": 1}]
SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")


def imdb(folder: Path) -> None:
    for split in ("train", "test"):
        for label, texts in (("pos", ["A joy.<br />Go.", "Très bien"]), ("neg", [f"A bore in the {split}."])):
            (folder / split / label).mkdir(parents=True)
            for i, text in enumerate(texts):
                (folder / split / label / f"{i}_{i + 5}.txt").write_text(text, encoding="utf-8")
    (folder / "train" / "unsup").mkdir()
    (folder / "train" / "unsup" / "0_0.txt").write_text("unlabelled")


@pytest.mark.parametrize("inside", ["", "aclImdb"])
def test_imdb_as_unpacked(tmp_path, inside):
    imdb(tmp_path / inside)
    found = read(find("imdb"), "train", str(tmp_path))
    assert found.texts == (("A bore in the train.", "A joy.<br />Go.", "Très bien"),)
    assert found.labels.tolist() == [0, 1, 1]
    assert read(find("imdb"), "test", str(tmp_path)).texts[0][0] == "A bore in the test."
    (tmp_path / inside / "test" / "pos" / "7_7.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match="7_7.txt: cannot be read as UTF-8"):
        read(find("imdb"), "test", str(tmp_path))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("word", ["validation", "valid", "val", "dev"])
def test_a_file_for_each_split(tmp_path, suffix, word):
    write(tmp_path / f"train{suffix}", ROWS)
    write(tmp_path / f"{word}{suffix}", ROWS[:1])
    task = own_task("own", ["text"], "label", ["0", "1"])
    found = read(task, "train", str(tmp_path))
    assert found.texts == (tuple(row["text"] for row in ROWS),) and found.labels.tolist() == [1, 0, 1]
    assert len(read(task, "validation", str(tmp_path))) == 1


def test_the_hubs_folders_of_parquet(tmp_path):
    """As a clone of the hub's repository has them: a folder a configuration, a split in parts."""
    (tmp_path / "mnli").mkdir()
    rows = [{"premise": f"p{i}", "hypothesis": f"h{i}", "label": i % 3, "idx": i} for i in range(5)]
    write(tmp_path / "mnli" / "train-00000-of-00002.parquet", rows[:3])
    write(tmp_path / "mnli" / "train-00001-of-00002.parquet", rows[3:])
    write(tmp_path / "mnli" / "validation_matched-00000-of-00001.parquet", rows[:2])
    found = read(find("mnli"), "train", str(tmp_path))
    assert found.texts[0] == ("p0", "p1", "p2", "p3", "p4") and found.labels.tolist() == [0, 1, 2, 0, 1]
    assert len(read(find("mnli"), "validation_matched", str(tmp_path))) == 2
    with pytest.raises(DataError, match="holds no validation_mismatched"):
        read(find("mnli"), "validation_mismatched", str(tmp_path))
    write(tmp_path / "mnli" / "train-00001-of-00002.parquet", [{"other": "x"}])
    with pytest.raises(ConfigError, match="train-00001-of-00002.parquet: its columns are not those of"):
        read(find("mnli"), "train", str(tmp_path))


def test_the_hubs_folder_of_squad(tmp_path):
    (tmp_path / "plain_text").mkdir()
    (tmp_path / "squad_v2").mkdir()
    answer = {"text": ["rain"], "answer_start": [4]}
    rows = [{"id": "q7", "title": "t", "context": "The rain.", "question": "What?", "answers": answer}]
    write(tmp_path / "plain_text" / "train-00000-of-00001.parquet", rows)
    found = read(find("squad"), "train", str(tmp_path))
    assert (found.ids, found.answers[0].starts, found.texts) == (("q7",), (4,), (("What?",), ("The rain.",)))
    write(tmp_path / "squad_v2" / "train-00000-of-00001.parquet", [row | {"id": "q8"} for row in rows])
    assert read(find("squad_v2"), "train", str(tmp_path)).ids == ("q8",)


def test_two_files_of_a_split_are_one_line(tmp_path):
    write(tmp_path / "train.csv", ROWS)
    write(tmp_path / "train.jsonl", ROWS)
    (tmp_path / "train.txt").write_text("of no kind, so not in the way")
    with pytest.raises(DataError, match="train.csv and train.jsonl both hold train; leave one"):
        read(find("imdb"), "train", str(tmp_path))


def test_what_is_not_there_is_one_line(tmp_path):
    with pytest.raises(DataError, match="none: no such folder; name one that holds imdb"):
        read(find("imdb"), "train", str(tmp_path / "none"))
    with pytest.raises(
        DataError, match="holds no test.csv, .tsv, .jsonl or .parquet or IMDb's test/pos/ and test/neg/"
    ):
        read(find("imdb"), "test", str(tmp_path))
