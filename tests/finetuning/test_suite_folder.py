"""The folder of a suite: which runs are its own, and nothing of a user's is written over."""

from __future__ import annotations

import json

import pytest
from fitted import leave, member, results
from harness import make_teacher

from distil.data.tokenizer import fingerprint, load_tokenizer
from distil.errors import ConfigError, DataError
from distil.finetuning.suite_folder import Identities, keep, members_of, members_there, refuse_strangers
from distil.finetuning.suite_options import Suite, suite_of
from distil.models.loading import load_config, weights_fingerprint


@pytest.fixture
def suite(tmp_path, language_model) -> Suite:
    given = {"model": str(language_model), "teacher": str(language_model), "tasks": "rte,cola", "seeds": 2}
    return suite_of(given | {"ways": "plain,second", "output_dir": str(tmp_path / "out")})


def test_a_round_of_seeds_has_every_task_and_label_and_a_teacher_comes_before_its_pupil(suite):
    titles = [one.title for one in members_of(suite)]
    first = [f"{task}, {label}, seed 1" for task in ("rte", "cola") for label in ("teacher", "student", "second")]
    assert titles == first + [title.replace("seed 1", "seed 2") for title in first]
    assert members_of(suite)[2].numbers.start.teacher == str(suite.folder / "rte" / "teacher-seed1" / "model")


def test_runs_there_are_those_with_results_under_a_members_name(suite):
    for task, label, seed in (("sst2", "student", 1), ("cola", "second", 7), ("rte", "teacher", 10)):
        leave(member(suite, task, label, seed), results(task, 50.0))
    for name in ("rte/student-seed01", "rte/pupil-seed1", "rte/student-seed3", "garden/student-seed1"):
        (suite.folder / name).mkdir(parents=True)
    (suite.folder / "rte" / "student-seed01" / "results.json").touch()
    found = [one.title for one in members_there(suite)]  # the tasks that are asked for come first
    assert found == ["rte, teacher, seed 10", "cola, second, seed 7", "sst2, student, seed 1"]


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt", ".hidden", "suite.md", "suite.json", "garden/run.json", "rte/notes.txt",
        "rte/thesis-seed1/run.json", "rte/student-seed1/thesis.tex", "run.json", "stop-mine",
    ],
)  # fmt: skip
def test_a_folder_of_a_users_own_is_refused(suite, name):
    path = suite.folder / name
    path.parent.mkdir(parents=True)
    path.write_text('{"mine": 1}')
    with pytest.raises(ConfigError) as caught:
        refuse_strangers(suite.folder)
    assert "give another --output_dir" in str(caught.value) and "\n" not in str(caught.value)
    assert path.read_text() == '{"mine": 1}'


def test_what_a_suite_leaves_is_its_own(suite):
    refuse_strangers(suite.folder)  # new
    leave(member(suite, "rte", "student", 1), results("rte", 50.0))
    keep(suite.folder, {"table": []}, "# A table")
    for name in ("stop", "stop-3", ".lock", ".suite.md", ".suite.json"):
        (suite.folder / name).touch()
    begun = suite.folder / "cola" / "second-seed2"
    begun.mkdir(parents=True)
    (begun / ".lock").touch()  # another process holds it
    refuse_strangers(suite.folder)
    assert json.loads((suite.folder / "suite.json").read_text())["kind"] == "suite of tasks by distil"


def identity(one, model) -> dict:
    """As a run of this member keeps it."""
    weights = {"model": weights_fingerprint(str(model), load_config(str(model)))}
    return {
        "fine-tuning": {"task": one.task.name, **one.numbers.numbers()}, "text": {"train": "a digest"},
        "tokenizer": fingerprint(load_tokenizer(model)), "weights": weights,
    }  # fmt: skip


def test_a_run_is_known_by_its_numbers_and_its_models(suite, language_model, tmp_path):
    one = member(suite, "rte", "student", 1)
    assert Identities().apart(one) == ""  # not there
    leave(one, results("rte", 50.0), identity(one, language_model))
    assert Identities().apart(one) == ""
    assert "seed: 1 there, 2 here" in Identities().apart(member_at(one, member(suite, "rte", "student", 2)))
    assert "task: rte there, cola here" in Identities().apart(member_at(one, member(suite, "cola", "student", 1)))
    other = make_teacher(tmp_path / "other", layers=3)
    leave(one, results("rte", 50.0), identity(one, other))
    assert Identities().apart(one).startswith("weights.model: ")


def member_at(one, other):
    """The other run, looked for in the folder of the one."""
    return type(other)(other.task, other.label, other.seed, one.folder, other.numbers)


def test_a_teacher_that_is_gone_is_not_held_against_a_run_and_another_is(suite, language_model, tmp_path):
    one = member(suite, "rte", "second", 1)
    then = identity(one, language_model)
    then["weights"]["teacher"] = "the fitted one's"
    leave(one, results("rte", 50.0), then)
    assert Identities().apart(one) == ""
    make_teacher(suite.folder / "rte" / "teacher-seed1" / "model")
    assert Identities().apart(one).startswith("weights.teacher: the fitted one's there")


def test_a_damaged_file_is_told(suite):
    one = member(suite, "rte", "student", 1)
    leave(one, results("rte", 50.0))
    (one.folder / "run.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        Identities().apart(one)
    (one.folder / "made.json").write_text("[]")
    with pytest.raises(DataError, match="remove it, and it is made anew"):
        one.notes()
