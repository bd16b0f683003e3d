"""A run in words: what was trained on what, and how far it came."""

from __future__ import annotations

import pytest
from left import CURVES, FINE_TUNED, PLAN, RESULTS, TASK_PLAN, recorded, run, texts

from distil.report import words


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
    identity = {"kind": "other", "of": "texts", "teacher": "d157fb2037e8f3b3f3cc", "mathematics": 3, "recipe": [1]}
    found = run(identity=identity, texts={})
    assert words.lead(found) == "kind other; of texts. Trained for 2 steps on 100 tokens."
    assert (words.title(found), words.circumstances(found)) == ("mine", "runs/mine")
    assert words.lead(recorded({}, identity={})) == "" and words.title(recorded({}, identity={})) == "mine"


def test_a_fine_tuning_is_told_in_a_sentence():
    found = run(identity=FINE_TUNED, texts={"plan": TASK_PLAN})
    assert words.title(found) == "imdb"
    assert words.lead(found) == (
        "runs/a, b/student (2 layers, 2.0 M parameters; its head is new: classifier), fitted to imdb for 2 steps on "
        "100 tokens, beside its teacher runs/t/model (4 layers, 3.0 M parameters). The loss: 0.5 task + 0.5 KL, T = 2. "
        "Judged on: 50 examples of test."
    )
    plan = TASK_PLAN.replace("runs/a, b/student", "distilbert").replace("; its head is new: classifier", "")
    alone = "\n".join(line for line in plan.splitlines() if not line.startswith(("  teacher", "  judged")))
    assert words.lead(run(identity=FINE_TUNED, texts={"plan": alone})) == (
        "A DistilBERT (2 layers, 2.0 M parameters), fitted to imdb for 2 steps on 100 tokens. The loss: 0.5 task + 0.5 "
        "KL, T = 2."
    )
    assert words.lead(run(identity=FINE_TUNED, texts={}, curves={})) == "Fine-tuned for imdb."


def test_where_it_ran_and_for_how_long():
    ds_config = '{"ranks": 2, "config": {"bf16": {"enabled": true}, "zero_optimization": {"stage": 1}}}'
    found = run(texts=texts(ds_config=ds_config), sessions=((1000.0, 1060.0), (2000.0, 2107.0)))
    assert words.circumstances(found) == (
        "runs/mine · a machine · 2 ranks · bf16 · ZeRO-1 · git 0123456789+ · torch 2.13.0 · 2 min 47 s in 2 sessions"
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
