"""The arithmetic of a suite's table, on results made by hand."""

from __future__ import annotations

import pytest
from fitted import results

from distil.finetuning import suite_table
from distil.finetuning.suite_table import Line, Spread, columns, lines_of, note, rows, values
from distil.tasks.catalogue import GLUE, TASKS


def runs(task: str, *scores: float, **more: object) -> dict:
    """Results by seed, from 1 on."""
    return {seed: results(task, score, **more) for seed, score in enumerate(scores, 1)}


def test_the_median_of_an_odd_and_of_an_even_number():
    assert Spread.of([3.0, 1.0, 7.0]) == Spread(3.0, 1.0, 7.0, 3)
    assert Spread.of([1.0, 9.0, 3.0, 4.0]) == Spread(3.5, 1.0, 9.0, 4)


def test_a_cell_is_the_median_and_half_the_range_and_one_value_has_none():
    assert Spread.of([91.25, 90.75, 92.0]).cell() == "91.2 \u00b1 0.6"
    assert Spread.of([-4.0]).cell() == "-4.0"


def test_a_tasks_score_is_the_mean_of_its_metrics_and_splits():
    scores = {"validation_matched": {"accuracy": 0.8}, "validation_mismatched": {"accuracy": 0.6}}
    found = {("mnli", "student"): {1: results("mnli", 0.0, scores=scores)}}
    assert Line.of("student", ["mnli"], found).scores["mnli"].median == pytest.approx(70.0)
    scores = {"validation": {"f1": 0.9, "accuracy": 0.5}}
    found = {("mrpc", "student"): {1: results("mrpc", 0.0, scores=scores)}}
    assert Line.of("student", ["mrpc"], found).scores["mrpc"].median == pytest.approx(70.0)


def test_macro_score_retention_minutes_and_parameters():
    found = {
        ("sst2", "teacher"): runs("sst2", 80.0, 90.0, 100.0, parameters=110_000_000, seconds=120.0),
        ("rte", "teacher"): runs("rte", 60.0, 50.0, 70.0, parameters=109_000_000, seconds=60.0),
        ("sst2", "student"): runs("sst2", 81.0, 85.5, 70.0),
        ("rte", "student"): runs("rte", 54.0, 54.0, 10.0, seconds=30.0),
    }
    teacher, student = lines_of(["sst2", "rte"], found)
    assert teacher.macro == pytest.approx(75.0) and teacher.minutes == pytest.approx(3.0)
    assert student.macro == pytest.approx((81.0 + 54.0) / 2) and student.minutes == pytest.approx(1.5)
    assert (teacher.parameters, student.parameters) == (110_000_000, 66_000_000)
    kept = student.kept(teacher)
    assert kept == {"sst2": pytest.approx(0.9), "rte": pytest.approx(0.9), "": pytest.approx(0.9)}
    by_label = {line["label"]: line for line in values([teacher, student])}
    assert by_label["student"]["kept"] == pytest.approx(0.9)
    assert by_label["student"]["tasks"]["sst2"]["kept"] == pytest.approx(0.9)
    assert by_label["student"]["tasks"]["sst2"]["low"] == pytest.approx(70.0)


def test_minutes_are_of_runs_that_went_through_in_one_go():
    of_seed = {1: results("rte", 50.0, from_step=5, seconds=1.0), 2: results("rte", 50.0, seconds=120.0)}
    assert Line.of("student", ["rte"], {("rte", "student"): of_seed}).minutes == pytest.approx(2.0)
    cut = {1: results("rte", 50.0, from_step=5, seconds=1.0)}
    assert Line.of("student", ["rte"], {("rte", "student"): cut}).minutes is None


def test_what_is_missing_is_a_dash_and_makes_no_macro_score():
    found = {
        ("sst2", "teacher"): runs("sst2", 90.0), ("rte", "teacher"): runs("rte", 0.0),
        ("sst2", "student"): runs("sst2", 45.0),
    }  # fmt: skip
    lines = lines_of(["sst2", "rte"], found)
    table = rows(lines, [TASKS["sst2"], TASKS["rte"]])
    assert table[1] == ["student", "-", "45.0", "-", "66.0 M", "-"]
    assert table[2] == ["kept of the teacher", "-", "50.0 %", "-", "", ""]
    # A teacher of score 0 has nothing to keep.
    found["rte", "student"] = runs("rte", 10.0)
    assert lines_of(["sst2", "rte"], found)[1].kept(lines[0])["rte"] is None


def test_without_a_teacher_nothing_is_kept():
    (line,) = lines_of(["rte"], {("rte", "student"): runs("rte", 55.0)})
    assert [row[0] for row in rows([line], [TASKS["rte"]])] == ["student", "paper: DistilBERT", "paper: BERT-base"]
    assert values([line])[0]["kept"] is None


def test_the_papers_rows_and_its_macro_score_of_all_nine_alone():
    nine = [TASKS[name] for name in GLUE]
    paper = {row[0]: row for row in rows([], nine)}
    assert paper["paper: DistilBERT"][1:3] == ["77.0", "51.3"] and paper["paper: BERT-base"][1] == "79.5"
    for tasks in (nine[:8], [*nine, TASKS["imdb"]]):
        assert {row[0]: row for row in rows([], tasks)}["paper: DistilBERT"][1] == "-"
    squad = {row[0]: row for row in rows([], [TASKS["squad"], TASKS["rotten-tomatoes"]])}
    assert squad["paper: DistilBERT, twice"][2:4] == ["83.0", "-"]  # the mean of 79.1 and 86.9


def test_columns_and_rows_fit_and_the_note_says_what_the_spread_is():
    found = {("rte", label): runs("rte", 50.0, 60.0) for label in ("teacher", "student", "second", "direct")}
    lines = lines_of(["rte"], found)
    assert [line.label for line in lines] == ["teacher", "student", "second", "direct"]
    assert {len(row) for row in rows(lines, [TASKS["rte"]])} == {len(columns(["rte"]))}
    told = note(lines, [1, 2], [TASKS["rte"]], found)
    assert "median \u00b1 half the range over 2 seeds" in told and "cut from" in told
    assert "not of fitting its teacher, nor of pretraining" in told
    assert "of one seed, 4" in note(lines[:1], [4], [TASKS["rte"]], found)
    assert suite_table.TITLES.keys() == {line.label for line in lines}


def test_the_note_says_how_much_was_read():
    judged = {"validation_matched": 9815, "validation_mismatched": 9832}
    found = {("mnli", "student"): runs("mnli", 80.0, judged=judged), ("rte", "teacher"): runs("rte", 60.0)}
    told = note(lines_of(["mnli", "rte"], found), [1], [TASKS["mnli"], TASKS["rte"]], found)
    assert (
        "Examples: mnli trained on 500, judged on 9,815 (validation_matched) and 9,832 (validation_mismatched); "
        "rte trained on 500, judged on 100 (validation)." in told
    )


@pytest.mark.parametrize(
    ("tasks", "said", "unsaid"),
    [
        (("rte",), ("of GLUE medians of 5 seeds (Table 1); its models",), ("Table 2", "one figure")),
        (("imdb", "squad"), ("1910.01108): of IMDb and SQuAD those of Table 2; its",), ("5 seeds", "one figure")),
        (("rte", "squad"), ("of GLUE medians of 5 seeds (Table 1); of IMDb and SQuAD those of Table 2",), ()),
        (("mrpc", "stsb", "qqp", "mnli"), (
            "one figure for mrpc, stsb, qqp and names no metric: ours is the mean of the two",
            "one figure for mnli: ours is the mean of matched and mismatched",
        ), ("Table 2",)),
        (("rotten-tomatoes",), (), ("paper",)),
    ],
)  # fmt: skip
def test_the_note_says_what_the_papers_figures_are(tasks, said, unsaid):
    told = note([], [1, 2], [TASKS[name] for name in tasks], {})
    assert all(text in told for text in said) and not any(text in told for text in unsaid)
