"""Runs that a suite's table compares although they are not alike."""

from __future__ import annotations

import pytest
from fitted import leave, member, results

from distil.finetuning.suite_options import Suite, suite_of
from distil.finetuning.suite_warnings import warnings


@pytest.fixture
def suite(tmp_path) -> Suite:
    return suite_of({"model": "m", "teacher": "t", "ways": "plain,second", "output_dir": str(tmp_path / "out")})


def all_runs(suite: Suite, **more: object) -> dict:
    return {
        member(suite, task, label, seed): results(task, 50.0, **more)
        for task in ("rte", "cola") for label in ("teacher", "student") for seed in (1, 2, 3)
    }  # fmt: skip


def test_of_runs_that_are_alike_nothing_is_said(suite):
    runs = all_runs(suite)
    how = {"precision": "fp16", "ranks": 1, "device": "a GPU"}
    assert warnings(runs, dict.fromkeys(runs, how)) == [] and warnings(runs, dict.fromkeys(runs, {})) == []


def test_seeds_that_are_missing_are_named(suite):
    runs = all_runs(suite)
    left = {one: r for one, r in runs.items() if one.title not in ("rte, student, seed 1", "rte, student, seed 3")}
    assert warnings(left, {}) == ["warning: not all runs are there: rte, student: seeds 1, 3"]
    left = {one: r for one, r in runs.items() if (one.task.name, one.label) != ("cola", "teacher")}
    assert warnings(left, {}) == ["warning: not all runs are there: cola, teacher: seeds 1, 2, 3"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"judged": {"validation": 40}}, "judged on 40 of validation: cola, student, seed 2"),
        ({"train_examples": 1000}, "trained on 1,000: cola, student, seed 2"),
        ({"step": 7}, "10 steps, but 7 steps: cola, student, seed 2"),
    ],
)
def test_a_run_on_other_text_or_of_other_length_is_named(suite, more, said):
    runs = all_runs(suite)
    odd = next(one for one in runs if one.title == "cola, student, seed 2")
    (line,) = warnings(runs | {odd: results("cola", 50.0, **more)}, {})
    assert line.startswith("warning: runs of cola") and said in line


@pytest.mark.parametrize(("key", "usual", "other"), [("precision", "fp16", "bf16"), ("ranks", 1, 2)])
def test_runs_that_were_made_otherwise_are_named(suite, key, usual, other):
    runs = all_runs(suite)
    made = {one: {key: other if one.seed == 2 and one.label == "teacher" else usual} for one in runs}
    assert warnings(runs, made) == [
        f"warning: runs are not made alike: {key} {usual}, but {key} {other}: rte, teacher, seed 2 and cola, teacher, "
        "seed 2"
    ]


def test_runs_of_a_label_on_another_loss_are_named(suite):
    runs = {member(suite, "rte", "second", seed): results("rte", 50.0) for seed in (1, 2, 3)}
    for one, done in runs.items():
        loss = {"temperature": 2.0, "alpha_ce": 0.9 if one.seed == 3 else 0.5}
        leave(one, done, {"fine-tuning": {"loss": loss, "student": {}}})
    assert warnings(runs, {}) == [
        "warning: runs of second are not made alike: temperature 2.0 alpha_ce 0.5, but temperature 2.0 alpha_ce 0.9: "
        "rte, second, seed 3"
    ]
