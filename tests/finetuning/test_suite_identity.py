"""Which runs in a suite's folder are what their names say, whatever a later command asks for."""

from __future__ import annotations

import json
import shutil

import pytest
from fitted import leave, member, results
from harness import SPECIAL, WORDS, make_teacher

from distil.data.tokenizer import fingerprint, load_tokenizer
from distil.errors import DataError
from distil.finetuning.suite_folder import MADE
from distil.finetuning.suite_identity import Identities
from distil.finetuning.suite_options import Suite, suite_of
from distil.models.loading import load_config, weights_fingerprint


@pytest.fixture
def asks(tmp_path, language_model):
    """A suite in the test's folder: what a command asks for."""

    def asks(**given: object) -> Suite:
        models = {"model": str(language_model), "teacher": str(language_model)}
        return suite_of(models | {"tasks": "rte,cola", "seeds": 2, "output_dir": str(tmp_path / "out")} | given)

    return asks


@pytest.fixture
def suite(asks) -> Suite:
    return asks(ways="plain,second")


def identity(one, model, **changes: object) -> dict:
    """As a run of this member keeps it."""
    weights = {"model": weights_fingerprint(str(model), load_config(str(model)))}
    return {
        "fine-tuning": {"task": one.task.name, **one.numbers.numbers()}, "text": {"train": "a digest"},
        "tokenizer": fingerprint(load_tokenizer(model)), "weights": weights,
    } | changes  # fmt: skip


def left(suite: Suite, label: str, seed: int, model, task: str = "rte", **changes: object):
    """A finished run of a suite."""
    one = member(suite, task, label, seed)
    leave(one, results(task, 50.0), identity(one, model, **changes))
    return one


def test_a_run_is_known_by_its_numbers_and_its_models(suite, language_model, tmp_path):
    one = member(suite, "rte", "student", 1)
    assert Identities(suite).apart(one) == ""  # not there
    left(suite, "student", 1, language_model)
    assert Identities(suite).apart(one) == ""
    assert "seed: 1 there, 2 here" in Identities(suite).apart(member_at(one, member(suite, "rte", "student", 2)))
    assert "task: rte there, cola here" in Identities(suite).apart(member_at(one, member(suite, "cola", "student", 1)))
    left(suite, "student", 1, make_teacher(tmp_path / "other", layers=3))
    assert Identities(suite).apart(one).startswith("weights.model: ")


def member_at(one, other):
    """The other run, looked for in the folder of the one."""
    return type(other)(other.task, other.label, other.seed, one.folder, other.numbers)


def test_a_teacher_that_is_gone_is_not_held_against_a_run_and_another_is(suite, language_model):
    one = member(suite, "rte", "second", 1)
    weights = {"model": weights_fingerprint(str(language_model), load_config(str(language_model)))}
    left(suite, "second", 1, language_model, weights=weights | {"teacher": "the fitted one's"})
    assert Identities(suite).apart(one) == ""
    make_teacher(suite.folder / "rte" / "teacher-seed1" / "model")
    assert Identities(suite).apart(one).startswith("weights.teacher: the fitted one's there")


def test_a_smaller_command_finds_nothing_against_what_a_larger_one_has_made(asks, language_model):
    """Labels with weights and a shape that it does not name, seeds, tasks, and the teacher."""
    large = asks(ways="plain,second,direct", alpha_ce=0.9, student_depth=3)
    runs = [
        left(large, label, seed, language_model, task)
        for label in large.labels for seed in large.seeds for task in ("rte", "cola")
    ]  # fmt: skip
    for given in ({}, {"teacher": None}, {"tasks": "rte", "seeds": 1}, {"teacher": None, "tasks": "sst2", "seed": 9}):
        small = asks(**given)
        found = [member(small, one.task.name, one.label, one.seed) for one in runs]
        same = Identities(small)
        assert [same.apart(one) for one in found] == [""] * 16


@pytest.mark.parametrize(
    ("given", "said"),
    [({"lr": 1e-4}, "fine-tuning.optimizer.lr: "), ({"train_examples": 9}, "fine-tuning.data.train_examples: 0 there")],
)
def test_what_all_runs_share_is_held_against_those_of_other_labels_too(asks, language_model, given, said):
    left(asks(ways="second"), "second", 1, language_model)
    small = asks(**given)
    assert Identities(small).apart(member(small, "rte", "second", 1)).startswith(said)


def test_a_label_that_is_asked_for_is_held_against_all_that_is_asked(asks, language_model):
    left(asks(ways="second", alpha_ce=0.9), "second", 7, language_model)
    asked = asks(ways="second")
    assert "loss.alpha_ce: 0.9 there, 0.5 here" in Identities(asked).apart(member(asked, "rte", "second", 7))


def test_runs_of_a_task_with_one_tokenizer_have_read_one_text(suite, language_model, tmp_path):
    one = left(suite, "student", 1, language_model)
    other = left(suite, "student", 2, language_model, text={"train": "another digest"})
    elsewhere = left(suite, "student", 1, language_model, "cola", text={"train": "a third"})
    same = Identities(suite)
    assert (same.apart(one), same.apart(elsewhere)) == ("", "")
    assert same.apart(other) == f"its text is another than that of {one.folder}: train"
    odd = make_teacher(tmp_path / "odd", [*SPECIAL, *reversed(WORDS)])
    asked = suite_of({"model": str(language_model), "teacher": str(odd), "output_dir": str(suite.folder)})
    teacher = left(asked, "teacher", 1, odd, text={"train": "ids of other words"})
    same = Identities(asked)
    assert (same.apart(member(asked, "rte", "student", 1)), same.apart(teacher)) == ("", "")


def test_a_run_that_was_made_on_other_data_is_another(asks, language_model, tmp_path):
    asked = asks(data=str(tmp_path / "texts"))
    one = left(asked, "student", 1, language_model)
    assert Identities(asked).apart(one) == ""  # nothing is known of it
    one.note({"data": f"{tmp_path}/./texts"}, MADE)
    assert Identities(asked).apart(one) == ""
    for data, said in (
        (str(tmp_path / "others"), "others here"),
        ("sample:imdb", "sample:imdb here"),
        ("", "hub here"),
    ):
        asked = asks(data=data)
        apart = Identities(asked).apart(member(asked, "rte", "student", 1))
        assert apart.startswith("data: ") and apart.endswith(said) and "texts there" in apart
    for elsewhere in ({"tasks": "cola"}, {"seed": 7}):  # of a task that is not asked for, or a seed: its text decides
        asked = asks(data=f"{tmp_path}/others", **elsewhere)
        assert Identities(asked).apart(member(asked, "rte", "student", 1)) == ""


def test_weights_are_hashed_again_where_they_have_changed(suite, language_model, tmp_path):
    asked = suite_of({"model": str(shutil.copytree(language_model, tmp_path / "m")), "output_dir": str(suite.folder)})
    one, same = left(asked, "student", 1, language_model), Identities(asked)
    assert same.apart(one) == "" == same.apart(one)
    make_teacher(tmp_path / "m", layers=3)
    assert same.apart(one).startswith("weights.model: ")


def test_a_damaged_file_is_told(suite, language_model):
    one = left(suite, "student", 1, language_model)
    (one.folder / "run.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        Identities(suite).apart(one)
    (one.folder / "run.json").write_text(json.dumps({"fine-tuning": {}, "weights": [1], "text": {}, "tokenizer": ""}))
    with pytest.raises(DataError, match="is the folder a run of ours"):
        Identities(suite).apart(one)
    (one.folder / "made.json").write_text("[]")
    with pytest.raises(DataError, match="remove it, and it is made anew"):
        one.notes()
