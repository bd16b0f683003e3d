"""A split, from files and data sets: subsets, overlaps, and what is refused in one line."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
from row_files import write

from distil.errors import ConfigError, DataError, UserError, one_line
from distil.tasks.catalogue import find, on_files
from distil.tasks.hub_data import columns_of
from distil.tasks.reading import empty_texts, examples_of, local_task, overlap, read
from distil.tasks.task import CLASSIFICATION, REGRESSION, Examples

ROWS = [{"body": f"text {i}", "also": f"more {i}", "stars": 1 + i % 3, "word": "abc"[i % 3]} for i in range(60)]


def files(folder: Path, suffix: str = ".csv", rows: list[dict] = ROWS) -> dict[str, str]:
    return {split: str(write(folder / f"{split}{suffix}", part)) for split, part in
            (("train", rows), ("validation", rows[:5]))}  # fmt: skip


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("label", ["stars", "word"])
def test_a_task_of_ones_own_files(tmp_path, suffix, label):
    named = files(tmp_path, suffix)
    task = on_files(local_task(named, ["body", "also"], label), named)
    assert task.labels == (("1", "2", "3") if label == "stars" else ("a", "b", "c")) and task.kind == CLASSIFICATION
    found = read(task, "train", files=named)
    assert found.labels.tolist() == [i % 3 for i in range(60)] and found.ids[:2] == ("0", "1")
    assert found.texts[1] == tuple(row["also"] for row in ROWS)
    assert len(read(task, task.validations[0], files=named)) == 5


def test_a_regression(tmp_path):
    named = files(tmp_path)
    task = local_task(named, ["body"], "stars", regression=True)
    assert task.kind == REGRESSION
    assert read(task, "train", files=named).labels.tolist() == [1 + i % 3 for i in range(60)]


def test_a_known_task_on_ones_own_files(tmp_path):
    rows = [{"text": "fine", "label": "pos"}, {"text": "dull", "label": 0}]
    named = {"test": str(write(tmp_path / "a.jsonl", rows))}
    task = on_files(find("imdb"), named)
    assert read(task, task.validations[0], files=named).labels.tolist() == [1, 0]


def test_a_subset_is_the_same_every_time(tmp_path):
    named = files(tmp_path)
    task = local_task(named, ["body"], "stars")
    whole = read(task, "train", files=named)
    part, again = (read(task, "train", files=named, limit=10) for _ in range(2))
    assert part.ids == again.ids
    numbers = [int(i) for i in part.ids]
    assert numbers == sorted(set(numbers)) and len(part) == 10
    assert part.texts[0] == tuple(whole.texts[0][i] for i in numbers)
    assert part.labels.tolist() == whole.labels[numbers].tolist()
    larger = read(task, "train", files=named, limit=30)
    assert set(part.ids) < set(larger.ids), "a smaller subset is part of a larger one"
    assert read(task, "train", files=named, limit=60).ids == whole.ids
    with pytest.raises(ConfigError, match="a limit of 0 examples; it must be at least 1"):
        read(task, "train", files=named, limit=0)


def examples(*texts: tuple[str, ...]) -> Examples:
    return Examples(tuple(map(str, range(len(texts[0])))), texts, np.zeros(len(texts[0]), np.int64))


def test_overlap_counts_twins_but_for_case_and_space():
    train = examples(("A  film", "good", "bad\n"), ("x", "y", "z"))
    assert overlap(train, examples(("a film ", "GOOD", "Good", "bad"), ("X", "y", "other", "y"))) == 2
    assert overlap(examples(("one", "two")), examples(("TWO", "two", "three"))) == 2
    assert overlap(examples(("one two",)), examples(("onetwo",))) == 0


def test_empty_texts_are_counted():
    assert empty_texts(examples(("a", " ", "b"), ("c", "d", ""))) == 2


def test_a_data_set_of_the_hub():
    """As ``datasets`` hands it over: labels with names, answers in a struct."""
    label = datasets.ClassLabel(names=["entailment", "not_entailment"])
    features = {"question": datasets.Value("string"), "sentence": datasets.Value("string"), "label": label}
    rows = {"question": ["q", "r"], "sentence": ["s", "t"], "label": [1, 0]}
    whole = datasets.Dataset.from_dict(
        {**rows, "idx": [0, 1]}, datasets.Features({**features, "idx": datasets.Value("int32")})
    )
    found = examples_of(find("qnli"), columns_of(find("qnli"), whole, "hub"))
    assert (found.texts, found.labels.tolist()) == ((("q", "r"), ("s", "t")), [1, 0])
    part = examples_of(find("qnli"), columns_of(find("qnli"), whole.select([1]), "hub"))
    assert part.texts == (("r",), ("t",))
    answers = {"text": datasets.List(datasets.Value("string")), "answer_start": datasets.List(datasets.Value("int32"))}
    names = ("id", "title", "context", "question")
    squad = datasets.Dataset.from_dict(
        {**{name: [name] for name in names}, "answers": [{"text": ["text"], "answer_start": [3]}]},
        datasets.Features({**{name: datasets.Value("string") for name in names}, "answers": answers}),
    )
    found = examples_of(find("squad"), columns_of(find("squad"), squad, "hub"))
    assert (found.ids, found.answers[0].texts, found.answers[0].starts) == (("id",), ("text",), (3,))


def test_a_hub_out_of_reach_is_one_line(monkeypatch, capfd):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="nyu-mll/glue, train: not to be had .* name a folder that holds rte") as raised:
        read(find("rte"), "train")
    assert str(raised.value) == one_line(raised.value)
    assert capfd.readouterr().err == ""


def test_what_is_refused_is_one_line(tmp_path):
    named = files(tmp_path)
    empty = {"train": str(write(tmp_path / "e.jsonl", []))}
    odd = {"train": str(write(tmp_path / "o.csv", [*ROWS, {**ROWS[0], "stars": 4}]))}
    task = local_task(named, ["body"], "stars")
    refused = [
        (lambda: local_task(named, ["bodi"], "star"), r"no column star \(did you mean stars\?\)"),
        (
            lambda: read(local_task(named, ["bodi"], "stars"), "train", files=named),
            r"no column bodi \(did you mean body",
        ),
        (lambda: local_task({"validation": named["validation"]}, ["body"], "stars"), "no training file"),
        (lambda: local_task(empty, ["body"], "stars"), "e.jsonl: holds no example"),
        (lambda: read(task, "train", files=empty), "e.jsonl: holds no example"),
        (lambda: read(task, "train", files=odd), "o.csv: line 62: label '4' is none of local's: 1, 2, 3"),
        (lambda: read(task, "test", files=named), "no file of split test; there are: train, validation"),
        (lambda: read(task, "train", files={"train": "no.csv"}), "no.csv: no such file"),
        (lambda: read(task, "train"), "task local is not on the hub; name its files or its folder"),
        (lambda: read(find("imdb"), "train", "sample:imbd"), "no sample sample:imbd of a task; there are: sample:imdb"),
    ]
    for call, message in refused:
        with pytest.raises(UserError, match=message) as raised:
            call()
        assert str(raised.value) == one_line(raised.value)
