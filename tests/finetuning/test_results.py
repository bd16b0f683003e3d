"""The table of a fine-tuning: this model, its teacher, what is kept, and the paper's figures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from distil.errors import DataError
from distil.finetuning.results import TaskResults
from distil.rundir import RESULTS

RESULT = TaskResults(
    task="mrpc", kind="classification", step=12, scores={"validation": {"f1": 0.8, "accuracy": 0.7}},
    teacher_scores={"validation": {"f1": 0.9, "accuracy": 0.85}}, agreement={"validation": 0.625},
    judged={"validation": 408}, train_examples=3668, parameters=66_955_010, teacher_parameters=109_483_778,
    seconds=12.5, from_step=0, paper={"student": (87.5,), "teacher": (88.6,)},
)  # fmt: skip
ALONE = replace(RESULT, teacher_scores={}, agreement={}, teacher_parameters=None, paper={})


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_figures_as_a_person_reads_them():
    assert RESULT.score == pytest.approx(75) and RESULT.retention == pytest.approx(75 / 87.5)
    columns, _, *rows = cells(RESULT.table())
    assert columns == ["", "f1", "accuracy", "score", "agreement", "parameters"]
    assert rows == [
        ["this model", "80.00", "70.00", "75.00", "62.5 %", "67.0 M"],
        ["its teacher", "90.00", "85.00", "87.50", "-", "109.5 M"],
        ["kept", "", "", "85.7 %", "", ""],
        ["paper: DistilBERT", "", "", "87.5", "", ""],
        ["paper: BERT-base", "", "", "88.6", "", ""],
    ]


def test_without_a_teacher_there_is_nothing_kept():
    assert ALONE.retention is None
    assert cells(ALONE.table())[2:] == [["this model", "80.00", "70.00", "75.00", "-", "67.0 M"]]


def test_a_teacher_that_is_worth_nothing_is_no_measure():
    zero = replace(RESULT, teacher_scores={"validation": {"f1": 0.0, "accuracy": 0.0}})
    assert zero.retention is None and "kept" not in zero.table()


def test_several_splits_and_a_paper_that_names_each_metric():
    both = {"validation_matched": {"accuracy": 0.5}, "validation_mismatched": {"accuracy": 0.75}}
    columns, _, row = cells(replace(ALONE, scores=both).table())
    assert columns[1:4] == ["accuracy (validation_matched)", "accuracy (validation_mismatched)", "score"]
    assert row[1:4] == ["50.00", "75.00", "62.50"]
    squad = replace(ALONE, scores={"validation": {"exact_match": 0.5, "f1": 0.6}}, paper={"student": (77.7, 85.8)})
    assert cells(squad.table())[3] == ["paper: DistilBERT", "77.7", "85.8", "81.8", "", ""]


def test_a_subset_is_no_match_for_the_papers_whole():
    assert cells(replace(RESULT, subset=True).table())[5][0] == "paper: DistilBERT, whole task"


@pytest.mark.parametrize("results", [RESULT, ALONE])
def test_what_is_written_is_read(tmp_path, results):
    results.write(tmp_path)
    assert TaskResults.read(tmp_path) == results
    stored = json.loads((tmp_path / RESULTS).read_text())
    assert stored["step"] == 12 and stored["score"] == results.score and stored["retention"] == results.retention


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"step": 12, "score": 1, "retention": null}'])
def test_damaged_results_are_refused(tmp_path, text):
    (tmp_path / RESULTS).write_text(text)
    with pytest.raises(DataError, match=RESULTS):
        TaskResults.read(tmp_path)
