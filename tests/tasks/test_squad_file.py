"""SQuAD's own JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distil.errors import DataError, one_line
from distil.tasks.catalogue import find
from distil.tasks.reading import read
from distil.tasks.task import Answer

CONTEXT = "Über the hills runs a road. The road was made in 1901 by two brothers."


def question(name: str, *answers: tuple[str, int], **more: object) -> dict:
    given = [{"text": text, "answer_start": start} for text, start in answers]
    return {"id": name, "question": f"{name}?", "answers": given, **more}


def written(path: Path, *questions: dict) -> Path:
    paragraphs = [{"context": CONTEXT, "qas": questions[:1]}, {"context": "It rained.", "qas": questions[1:]}]
    path.write_text(json.dumps({"version": "x", "data": [{"title": "t", "paragraphs": paragraphs}]}))
    return path


TWO = question("when", ("1901", CONTEXT.index("1901")), ("in 1901", CONTEXT.index("in 1901")))
NONE = question("why", is_impossible=True, plausible_answers=[{"text": "rained", "answer_start": 3}])


def test_answers_and_no_answers(tmp_path):
    written(tmp_path / "dev-v2.0.json", TWO, NONE)
    for found in (
        read(find("squad_v2"), "validation", str(tmp_path)),
        read(find("squad_v2"), "train", files={"train": str(tmp_path / "dev-v2.0.json")}),
    ):
        assert found.ids == ("when", "why") and found.texts == (("when?", "why?"), (CONTEXT, "It rained."))
        assert found.answers == (Answer(("1901", "in 1901"), (49, 46)), Answer((), ()))
        assert len(found) == 2 and not len(found.labels)


def test_each_version_has_its_file(tmp_path):
    written(tmp_path / "train-v1.1.json", TWO)
    assert read(find("squad"), "train", str(tmp_path)).ids == ("when",)
    with pytest.raises(DataError, match="holds no train.csv"):
        read(find("squad_v2"), "train", str(tmp_path))


def test_a_start_may_be_off_by_two(tmp_path):
    for shift in (-2, -1, 1, 2):
        path = written(tmp_path / "a.json", question("when", ("1901", 49 + shift)))
        assert read(find("squad"), "train", files={"train": str(path)}).answers[0].starts == (49,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([question("when", ("1901", 40))], "row 1: its answer '1901' is not where it says in the context"),
        ([question("when", ("1902", 49))], "row 1: its answer '1902' is not where it says"),
        ([TWO, question("why")], "row 2: no answer, and every question of squad has one; try squad_v2"),
        ([{"id": "when", "question": "when?"}], r"not as SQuAD's files are \(KeyError: 'answers'\)"),
        ([TWO, question("why", ("rained", "three"))], "row 2: .* answer_start"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, content, message):
    path = written(tmp_path / "a.json", *content)
    with pytest.raises(DataError, match=f"a.json: {message}") as raised:
        read(find("squad"), "train", files={"train": str(path)})
    assert str(raised.value) == one_line(raised.value)


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "train-v1.1.json"
    path.write_text('{"data": [')
    with pytest.raises(DataError, match="train-v1.1.json: is no JSON"):
        read(find("squad"), "train", str(tmp_path))
    path.write_bytes(b'{"data": ["\xff"]}')
    with pytest.raises(DataError, match="train-v1.1.json: is not UTF-8"):
        read(find("squad"), "train", str(tmp_path))
    path.write_text('{"questions": []}')
    with pytest.raises(DataError, match="train-v1.1.json: not as SQuAD's files are"):
        read(find("squad"), "train", str(tmp_path))
    path.write_text('{"data": []}')
    with pytest.raises(DataError, match="train-v1.1.json: holds no example"):
        read(find("squad"), "train", str(tmp_path))
