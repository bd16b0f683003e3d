"""A run in words: what was trained on what, how far it came, and the figures one looks for first."""

from __future__ import annotations

import pytest
from left import IDENTITY, PLAN, RESULTS, recorded

from distil.report import words
from distil.report.record import Record

CURVES = {"loss/total": [9.0, 8.0], "data/tokens": [50.0, 100.0], "heldout/mlm_accuracy": [0.1, 0.25]}


def texts(**others: str) -> dict[str, str]:
    return {"plan": PLAN, "versions": '{"git": "0123456789abcdef+", "device": "a machine", "torch": "2.13.0"}'} | others


def run(**others: object) -> Record:
    return recorded(others.pop("curves", CURVES), texts=others.pop("texts", texts()), **others)


def test_a_distillation_is_told_in_a_sentence():
    assert words.lead(run()) == (
        "A DistilBERT of 2 layers and 2.0 M parameters, begun as layers 0, 2 of fitted (4 layers, 3.0 M parameters) "
        "and taught by it for 2 steps on 100 tokens of texts, data/books:0.3. The loss: 5 CE + 1 COS, T = 2."
    )
    assert words.title(run()) == "mine"


def test_a_random_student_is_begun_as_what_it_is():
    plan = PLAN.replace("distilbert of layers 0 2,", "albert of random weights,")
    assert words.lead(run(texts=texts(plan=plan))).startswith(
        "An ALBERT of 2 layers and 2.0 M parameters, begun with random weights and taught by fitted (4 layers, 3.0 M "
    )


def test_who_learns_without_a_teacher_is_not_said_to_have_one():
    plan = PLAN.replace("  teacher         ", "  initial weights ")
    assert "begun as layers 0, 2 of fitted (4 layers, 3.0 M parameters) and trained on labels alone for" in words.lead(
        run(texts=texts(plan=plan))
    )


def test_many_stores_are_counted():
    identity = {"mathematics": {"data": {"store": [f"data/{i}" for i in range(9)]}}}
    assert "on 100 tokens of data/0, data/1, data/2 and 6 more" in words.lead(run(identity=identity))


def test_of_another_kind_of_run_what_is_known_is_said():
    identity = {"kind": "fine-tuning", "task": "imdb", "teacher": "d157fb2037e8f3b3f3cc", "mathematics": 3}
    found = run(identity=identity, texts={})
    assert words.lead(found) == "kind fine-tuning; task imdb. Trained for 2 steps on 100 tokens."
    assert (words.title(found), words.circumstances(found)) == ("imdb", "")
    assert words.lead(recorded({}, identity={})) == "" and words.title(recorded({}, identity={})) == "mine"


def test_where_it_ran_and_for_how_long():
    ds_config = '{"ranks": 2, "config": {"bf16": {"enabled": true}, "zero_optimization": {"stage": 1}}}'
    found = run(texts=texts(ds_config=ds_config), sessions=((1000.0, 1060.0), (2000.0, 2107.0)))
    assert words.circumstances(found) == (
        "a machine · 2 ranks · bf16 · ZeRO-1 · git 0123456789+ · torch 2.13.0 · 2 min 47 s in 2 sessions"
    )


@pytest.mark.parametrize(
    ("results", "curves", "status"),
    [
        (RESULTS, {}, "Finished at step 20"), (None, {}, "Unfinished: it has not reported a step yet"),
        (None, CURVES, "Unfinished: at step 2 of 20"), ({}, {}, "Finished"),
        (RESULTS | {"step": 1}, CURVES, "Unfinished: at step 2 of 20; results are of step 1"),
    ],
)  # fmt: skip
def test_how_far_it_came(results, curves, status):
    found = run(results=results, curves=curves)
    assert words.status(found) == status and words.finished(found) == status.startswith("Finished")


def test_key_figures_are_held_against_the_teachers():
    assert [(t.value, t.name, t.against) for t in words.tiles(run(results=RESULTS))] == [
        ("80.0 %", "of the teacher's held-out accuracy", "40.0 % against 50.0 %; 10.0 % before training"),
        ("80.0 %", "agreement with the teacher", "20.0 % before training"),
        ("2.0 M", "parameters", "67% of the teacher's 3.0 M"),
        ("1.50×", "as fast as the teacher", "6.0 ms a sequence against 9.0"),
        ("30.0", "held-out perplexity", "teacher 20.0; 400.0 before training"),
    ]


def test_without_a_teacher_or_held_out_text_less_is_said():
    alone = RESULTS["rows"][2] | {"agreement": None}
    assert [(t.value, t.name, t.against) for t in words.tiles(run(results={"rows": [alone]}))] == [
        ("40.0 %", "held-out accuracy", ""), ("2.0 M", "parameters", ""), ("6.0 ms", "a sequence", "batch 1, fp32"),
        ("30.0", "held-out perplexity", ""),
    ]  # fmt: skip
    nothing = alone | {"accuracy": None, "perplexity": None, "parameters": "many", "milliseconds": 0}
    assert words.tiles(run(results={"rows": [nothing]})) == []


def test_other_results_have_their_numbers_as_they_are_named():
    found = words.tiles(run(results={"step": 9, "task": "imdb", "accuracy": 0.875, "matthews": 0.5, "rows": []}))
    assert [(t.value, t.name) for t in found] == [("87.5 %", "accuracy"), ("0.5", "matthews")]


def test_an_unfinished_run_has_where_it_stands():
    curves = CURVES | {"heldout/teacher_accuracy": [0.5, 0.5]}
    assert [(t.value, t.name, t.against) for t in words.tiles(run(curves=curves))] == [
        ("2", "steps", "10% of 20"), ("8", "loss", "at step 2"),
        ("25.0 %", "held-out accuracy", "at step 2; teacher 50.0 %"),
    ]  # fmt: skip
    assert words.tiles(recorded({}, identity=IDENTITY)) == []
