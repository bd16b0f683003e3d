"""GLUE's own files, written by hand in its layout, for all nine tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distil.errors import DataError, one_line
from distil.tasks.catalogue import GLUE, find
from distil.tasks.reading import read

# Of each task its folder, the first line of train.tsv (none for CoLA), rows, and what they say.
FILES = {
    "cola": ("CoLA", None, ["ab12\t1\t\tThe dog slept.", 'ab13\t0\t*\tDog the "slept.'],
             [("The dog slept.",), ('Dog the "slept.',)], [1, 0]),
    "sst2": ("SST-2", "sentence\tlabel", ["a fine film \t1", '" dull " it was\t0'],
             [("a fine film ",), ('" dull " it was',)], [1, 0]),
    "mrpc": ("MRPC", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
             ['1\t7\t8\tHe said "no.\tHe said no.', "0\t9\t10\tIt rained.\tIt's dry."],
             [('He said "no.', "He said no."), ("It rained.", "It's dry.")], [1, 0]),
    "stsb": ("STS-B", "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
             ["0\tnews\tf\t2012\t1\tnone\tnone\tA man runs.\tA man is running.\t4.750",
              "1\tnews\tf\t2012\t2\tnone\tnone\tA cat.\tTwo boats.\t0"],
             [("A man runs.", "A man is running."), ("A cat.", "Two boats.")], [4.75, 0]),
    "qqp": ("QQP", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
            ["5\t1\t2\tHow do I cook rice?\tHow is rice cooked?\t1", '6\t3\t4\tWhat is "it?\t\t0'],
            [("How do I cook rice?", "How is rice cooked?"), ('What is "it?', "")], [1, 0]),
    "mnli": ("MNLI", "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\t"
             "sentence1_parse\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
             ["0\t1\t1n\tfiction\t( a )\t( b )\t(R a)\t(R b)\tIt was late.\tIt was night.\tneutral\tneutral",
              "1\t2\t2c\tfiction\t( a )\t( b )\t(R a)\t(R b)\tShe ran.\tShe sat.\tcontradiction\tcontradiction",
              "2\t3\t3e\tfiction\t( a )\t( b )\t(R a)\t(R b)\tShe ran.\tShe moved.\tentailment\tentailment"],
             [("It was late.", "It was night."), ("She ran.", "She sat."), ("She ran.", "She moved.")], [1, 2, 0]),
    "qnli": ("QNLI", "index\tquestion\tsentence\tlabel",
             ["0\tWhen was it?\tIt was in May.\tentailment", "1\tWho?\tIt was in May.\tnot_entailment"],
             [("When was it?", "It was in May."), ("Who?", "It was in May.")], [0, 1]),
    "rte": ("RTE", "index\tsentence1\tsentence2\tlabel",
            ["0\tA bank closed.\tA bank is open.\tnot_entailment", "1\tIt snowed.\tSnow fell.\tentailment"],
            [("A bank closed.", "A bank is open."), ("It snowed.", "Snow fell.")], [1, 0]),
    "wnli": ("WNLI", "index\tsentence1\tsentence2\tlabel",
             ["0\tHe took it as it was free.\tThe thing was free.\t1", "1\tI sat as I was tired.\tIt was tired.\t0"],
             [("He took it as it was free.", "The thing was free."), ("I sat as I was tired.", "It was tired.")],
             [1, 0]),
}  # fmt: skip
DEV_OF_MNLI = "index\tpromptID\tpairID\tgenre\tsentence1\tsentence2\tlabel1\tlabel2\tgold_label"


def glue(folder: Path, name: str, ending: str = "\n") -> Path:
    """A task's folder in GLUE's layout: train.tsv whole, dev.tsv without its last row."""
    sub, header, rows, _, _ = FILES[name]
    (folder / sub).mkdir(parents=True)
    head = [header] if header else []
    dev = ["dev"] if name != "mnli" else ["dev_matched", "dev_mismatched"]
    for split, part in (("train", rows), *((word, rows[:-1]) for word in dev)):
        (folder / sub / f"{split}.tsv").write_text(ending.join([*head, *part]) + ending, encoding="utf-8", newline="")
    return folder / sub


@pytest.mark.parametrize("name", GLUE)
def test_all_nine_in_their_own_layout(tmp_path, name):
    folder = glue(tmp_path, name)
    *_, texts, labels = FILES[name]
    for data in (tmp_path, folder):  # the folder of all tasks, or the task's own
        found = read(find(name), "train", str(data))
        assert list(zip(*found.texts, strict=True)) == texts
        assert found.labels.tolist() == labels
        assert found.labels.dtype == (np.float32 if name == "stsb" else np.int64)
        for split in find(name).validations:
            assert len(read(find(name), split, str(data))) == len(texts) - 1
    assert found.where == str(folder / "train.tsv")


def test_mnlis_dev_files_have_columns_of_their_own(tmp_path):
    folder = glue(tmp_path, "mnli")
    row = "0\t1\t1e\tletters\tIt was hot.\tIt was warm.\tneutral\tentailment\tentailment"
    (folder / "dev_mismatched.tsv").write_text(f"{DEV_OF_MNLI}\n{row}\n")
    found = read(find("mnli"), "validation_mismatched", str(tmp_path))
    assert (found.texts, found.labels.tolist()) == ((("It was hot.",), ("It was warm.",)), [0])


@pytest.mark.parametrize("name", ["cola", "sst2"])
def test_lines_may_end_as_windows_has_them(tmp_path, name):
    glue(tmp_path, name, "\r\n")
    assert read(find(name), "train", str(tmp_path)).labels.tolist() == FILES[name][-1]


def test_only_a_line_feed_ends_a_line(tmp_path):
    folder = glue(tmp_path, "rte")
    odd = "A\u2028b\x0bc\x85d\x1ce\rf"
    (folder / "train.tsv").write_bytes(f"index\tsentence1\tsentence2\tlabel\n0\t{odd}\tb\tentailment\n".encode())
    assert read(find("rte"), "train", str(tmp_path)).texts[0] == (odd,)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("cola", "ab\t1\tThe dog.", "CoLA/train.tsv: line 3 has 3 columns, not 4"),
        ("cola", "ab\t2\t\tThe dog.", "CoLA/train.tsv: line 3: label '2' is none of cola's: unacceptable, acceptable"),
        ("qqp", "7\t1\t2\tHow?\t1", "QQP/train.tsv: line 4 has 5 columns, not 6"),
        ("rte", "9\ta\tb\tentails", r"RTE/train.tsv: line 4: label 'entails' .* \(did you mean entailment\?\)"),
        ("stsb", "2\tn\tf\t1\t2\tn\tn\ta\tb\tmuch", "STS-B/train.tsv: line 4: label 'much' is no number"),
    ],
)
def test_a_bad_line_is_named(tmp_path, name, line, message):
    folder = glue(tmp_path, name)
    with (folder / "train.tsv").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=message) as raised:
        read(find(name), "train", str(tmp_path))
    assert str(raised.value) == one_line(raised.value)


def test_what_is_missing_is_named(tmp_path):
    folder = glue(tmp_path, "cola")
    with pytest.raises(DataError, match="CoLA/test.tsv: no such file; GLUE's folder of cola has one"):
        read(find("cola"), "test", str(tmp_path))
    (folder / "test.tsv").write_text("index\tsentence\n0\tThe dog.\n")
    with pytest.raises(
        DataError, match="CoLA/test.tsv: no column label; the labels of GLUE's test splits are not public"
    ):
        read(find("cola"), "test", str(tmp_path))
    (folder / "train.tsv").write_bytes("gj04\t1\t\tLa neige fondue est \xe0 l'eau.\n".encode("latin-1"))
    with pytest.raises(DataError, match="CoLA/train.tsv: is not UTF-8"):
        read(find("cola"), "train", str(tmp_path))
    (folder / "train.tsv").write_text("")
    with pytest.raises(DataError, match="CoLA/train.tsv: holds no example"):
        read(find("cola"), "train", str(tmp_path))
    with pytest.raises(DataError, match=r"holds no train.csv, .tsv, .jsonl or .parquet or GLUE's QNLI/"):
        read(find("qnli"), "train", str(tmp_path))
