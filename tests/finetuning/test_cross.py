"""Which model stands for a task in the matrix, which tasks it is tried on, and how the matrix looks."""

from __future__ import annotations

import pytest
from fitted import member, results

from distil.finetuning.cross import fits, medians, order, rows
from distil.finetuning.suite_options import suite_of
from distil.tasks.catalogue import TASKS


@pytest.mark.parametrize(
    ("scores", "seed"), [((70.0, 90.0, 80.0), 3), ((70.0, 90.0, 80.0, 60.0), 1), ((50.0, 50.0, 50.0), 2), ((4.0,), 1)]
)
def test_the_run_with_the_median_score_stands_for_its_seeds(tmp_path, scores, seed):
    suite = suite_of({"model": "m", "teacher": "t", "output_dir": str(tmp_path / "out")})
    runs = {member(suite, "rte", "student", i): results("rte", score) for i, score in enumerate(scores, 1)}
    runs |= {member(suite, "rte", "teacher", 9): results("rte", 1.0)}
    runs |= {member(suite, "cola", "teacher", 9): results("cola", 1.0)}
    runs |= {member(suite, "cola", "direct", 5): results("cola", 1.0)}
    found = medians(runs)  # a teacher's is none
    assert {key: (one.label, one.seed) for key, one in found.items()} == {
        ("student", "rte"): ("student", seed), ("direct", "cola"): ("direct", 5)
    }  # fmt: skip


@pytest.mark.parametrize(
    ("one", "other", "fitting"),
    [
        ("sst2", "imdb", True), ("rte", "sst2", True), ("mnli", "rte", False), ("stsb", "sst2", False),
        ("squad", "squad_v2", True), ("squad", "sst2", False), ("stsb", "stsb", True),
    ],
)  # fmt: skip
def test_tasks_that_fit_are_of_one_kind_with_as_many_outputs(one, other, fitting):
    assert fits(TASKS[one], TASKS[other]) is fits(TASKS[other], TASKS[one]) is fitting


@pytest.mark.parametrize(
    ("one", "other", "places"),
    [
        ("rte", "wnli", [1, 0]), ("wnli", "qnli", [1, 0]), ("rte", "qnli", [0, 1]),  # of one name
        ("sst2", "imdb", [0, 1]), ("rte", "cola", [0, 1]), ("mnli", "mnli", [0, 1, 2]),
        ("stsb", "stsb", [0]), ("squad", "squad_v2", [0, 1]),
    ],
)  # fmt: skip
def test_classes_are_taken_by_name_where_both_tasks_name_them_alike(one, other, places):
    assert order(TASKS[one], TASKS[other]) == places


def test_a_pair_that_does_not_fit_or_could_not_be_read_is_a_dash():
    cells = {
        "student": {
            "sst2": {"sst2": 90.0, "imdb": 70.04},
            "mnli": {"mnli": None},
            "imdb": {"imdb": 80.0, "sst2": 60.0},
        },
        "direct": {"sst2": {"sst2": 80.0}},
    }
    assert rows(["sst2", "mnli", "imdb"], cells) == [
        ["student, fitted to sst2", "90.0", "-", "70.0"],
        ["student, fitted to mnli", "-", "-", "-"],
        ["student, fitted to imdb", "60.0", "-", "80.0"],
        ["student, distilled directly, fitted to sst2", "80.0", "-", "-"],
    ]
