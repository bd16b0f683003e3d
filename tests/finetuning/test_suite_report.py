"""What is written of a suite, in which order, and what is left of earlier tables."""

from __future__ import annotations

import json

import pytest
from fitted import leave, member, results

from distil.errors import DataError
from distil.exhibit import read_all
from distil.finetuning.suite_options import suite_of
from distil.finetuning.suite_report import Report

CELLS = {"student": {"sst2": {"sst2": 90.0, "imdb": 80.0}, "imdb": {"imdb": 85.0, "sst2": 70.0}}}


@pytest.fixture
def asks(tmp_path):
    """A suite in the test's folder, with a run of each label on two tasks, and their report."""

    def asks(**given: object) -> Report:
        whole = suite_of({"model": "m", "teacher": "t", "ways": "plain,direct", "output_dir": str(tmp_path / "out")})
        runs = {
            member(whole, task, label, 1): results(task, 50.0)
            for task in ("sst2", "imdb") for label in ("teacher", "student", "direct")
        }  # fmt: skip
        for one, done in runs.items():
            leave(one, done)
        asked = suite_of({"model": "m", "teacher": "t", "output_dir": str(tmp_path / "out")} | given)
        return Report(asked, runs, " ".join(["suite", *given]), tmp_path / "run")

    return asks


def test_the_tables_stand_before_the_matrix_and_with_it(asks, tmp_path, capsys):
    report = asks()
    report.write()
    first, document = capsys.readouterr().out, tmp_path / "out" / "suite.md"
    assert "| macro-score" in first and "fitted to" not in first + document.read_text()
    assert list(read_all(tmp_path / "run")) == ["suite"]
    report.add(CELLS)
    second = capsys.readouterr().out
    assert "| macro-score" not in second and "| student, fitted to sst2 " in second
    assert "| macro-score" in document.read_text() and "| student, fitted to sst2 " in document.read_text()
    assert json.loads((tmp_path / "out" / "suite.json").read_text())["cross"] == CELLS
    assert read_all(tmp_path / "run")["suite_cross"].columns == ("", "sst2", "imdb")
    asks(cross=False).write()  # the matrix was of runs that may be others now
    assert list(read_all(tmp_path / "run")) == ["suite"] and "fitted to" not in document.read_text()


def test_warnings_stand_in_the_terminal_the_document_and_the_runs_report(asks, tmp_path, capsys):
    report = asks()
    odd = next(iter(report._runs))
    report._runs[odd] = results("sst2", 50.0, train_examples=9)
    report.write()
    said = "warning: runs of sst2 are not made alike: trained on 500, but trained on 9: sst2, teacher, seed 1"
    assert said in capsys.readouterr().out and said in (tmp_path / "out" / "suite.md").read_text()
    assert read_all(tmp_path / "run")["suite"].note.endswith(f" {said}.")


def test_the_teacher_of_an_earlier_command_is_kept(asks, tmp_path):
    asks().write()
    asks(teacher="").write()
    values = json.loads((tmp_path / "out" / "suite.json").read_text())
    assert values["models"] == {"student": "m", "teacher": "t"} and values["commands"] == ["suite", "suite teacher"]
    assert [line["label"] for line in values["table"]] == ["teacher", "student", "direct"]
    assert (tmp_path / "out" / "suite.md").read_text().startswith("# m on tasks, beside t\n")


@pytest.mark.parametrize("what", ["run", "run/evaluations"])
def test_tables_are_printed_and_kept_also_where_a_runs_report_cannot_have_them(asks, tmp_path, capsys, what):
    path = tmp_path / what
    path.parent.mkdir(exist_ok=True)
    path.write_text("a file of mine")
    report = asks()
    with pytest.raises(DataError) as caught:
        report.write()
    assert "cannot be written" in str(caught.value) and "\n" not in str(caught.value)
    assert "| macro-score" in capsys.readouterr().out and (tmp_path / "out" / "suite.json").exists()
    assert path.read_text() == "a file of mine"
