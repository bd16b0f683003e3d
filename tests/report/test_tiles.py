"""The figures that one looks for first, held against what makes them mean something."""

from __future__ import annotations

from left import CURVES, FINE_TUNED, IDENTITY, RESULTS, recorded, run, task_results

from distil.report.tiles import tiles


def test_key_figures_are_held_against_the_teachers():
    assert [(t.value, t.name, t.against) for t in tiles(run(results=RESULTS))] == [
        ("80.0 %", "of the teacher's held-out accuracy", "40.0 % against 50.0 %; 10.0 % before training"),
        ("80.0 %", "agreement with the teacher", "20.0 % before training"),
        ("2.0 M", "parameters", "67% of the teacher's 3.0 M"),
        ("1.50×", "as fast as the teacher", "6.0 ms a sequence against 9.0"),
        ("30.0", "held-out perplexity", "teacher 20.0; 400.0 before training"),
    ]


def test_without_a_teacher_or_held_out_text_less_is_said():
    alone = RESULTS["rows"][2] | {"agreement": None}
    assert [(t.value, t.name, t.against) for t in tiles(run(results={"rows": [alone]}))] == [
        ("40.0 %", "held-out accuracy", ""), ("2.0 M", "parameters", ""), ("6.0 ms", "a sequence", "batch 1, fp32"),
        ("30.0", "held-out perplexity", ""),
    ]  # fmt: skip
    nothing = alone | {"accuracy": None, "perplexity": None, "parameters": "many", "milliseconds": 0}
    assert tiles(run(results={"rows": [nothing]})) == []


def test_other_results_have_their_numbers_as_they_are_named():
    found = tiles(run(results={"step": 9, "task": "imdb", "accuracy": 0.875, "matthews": 0.5, "rows": []}))
    assert [(t.value, t.name) for t in found] == [("87.5 %", "accuracy"), ("0.5", "matthews")]


def test_an_unfinished_run_has_where_it_stands():
    curves = CURVES | {"heldout/teacher_accuracy": [0.5, 0.5]}
    assert [(t.value, t.name, t.against) for t in tiles(run(curves=curves))] == [
        ("2", "steps", "10% of 20"), ("8", "loss", "at step 2"),
        ("25.0 %", "held-out accuracy", "at step 2; teacher 50.0 %"),
    ]  # fmt: skip
    assert tiles(recorded({}, identity=IDENTITY)) == []


def test_an_unfinished_fine_tuning_has_what_it_was_judged_on():
    curves = {"test/accuracy": [0.5, 0.75], "validation_matched/agreement": [0.25, 0.5], "score": [50.0, 75.0]}
    assert [(t.value, t.name, t.against) for t in tiles(run(identity=FINE_TUNED, curves=curves))][1:] == [
        ("75.0 %", "accuracy", "on test, at step 2"), ("50.0 %", "agreement", "on validation_matched, at step 2"),
        ("75", "score", "at step 2"),
    ]  # fmt: skip


def test_a_fine_tuning_is_held_against_its_teacher():
    assert [(t.value, t.name, t.against) for t in tiles(run(task_results=task_results()))] == [
        ("97.1 %", "of the teacher's score", "82.5 against 85.0"), ("90.0 %", "agreement with the teacher", ""),
        ("2.0 M", "parameters", "67% of the teacher's 3.0 M"), ("2 min 5 s", "of training", "without evaluations"),
    ]  # fmt: skip
    alone = task_results(teacher_scores={}, agreement={}, teacher_parameters=None, from_step=10)
    assert [(t.value, t.name, t.against) for t in tiles(run(task_results=alone))] == [
        ("82.5", "score", "in percent"), ("2.0 M", "parameters", ""), ("2 min 5 s", "of training", "from step 10 on"),
    ]  # fmt: skip
