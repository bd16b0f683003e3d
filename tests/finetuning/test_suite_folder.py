"""The folder of a suite: which runs are its own, and nothing of a user's is written over."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fitted import leave, member, results

from distil.errors import ConfigError
from distil.finetuning import suite_folder
from distil.finetuning.suite_folder import keep, members_of, members_there, refuse_strangers
from distil.finetuning.suite_options import Suite, suite_of


@pytest.fixture
def suite(tmp_path, language_model) -> Suite:
    given = {"model": str(language_model), "teacher": str(language_model), "tasks": "rte,cola", "seeds": 2}
    return suite_of(given | {"ways": "plain,second", "output_dir": str(tmp_path / "out")})


def test_a_round_of_seeds_has_every_task_and_label_and_a_teacher_comes_before_its_pupil(suite):
    titles = [one.title for one in members_of(suite)]
    first = [f"{task}, {label}, seed 1" for task in ("rte", "cola") for label in ("teacher", "student", "second")]
    assert titles == first + [title.replace("seed 1", "seed 2") for title in first]
    assert members_of(suite)[2].numbers.start.teacher == str(suite.folder / "rte" / "teacher-seed1" / "model")


def test_runs_there_are_those_under_a_members_name_finished_or_not(suite):
    for task, label, seed in (("sst2", "student", 1), ("cola", "direct", 7), ("rte", "teacher", 10)):
        leave(member(suite, task, label, seed), results(task, 50.0))
    (member(suite, "rte", "teacher", 10).folder / "results.json").unlink()
    for name in ("rte/student-seed01", "rte/pupil-seed1", "garden/student-seed1"):
        (suite.folder / name).mkdir(parents=True)
        (suite.folder / name / "run.json").touch()
    (suite.folder / "rte" / "student-seed3").mkdir()
    there = members_there(suite)  # the tasks that are asked for come first
    assert [one.title for one in there] == ["rte, teacher, seed 10", "cola, direct, seed 7", "sst2, student, seed 1"]
    assert [one.numbers is None for one in there] == [False, True, False]  # nothing is known of a label not asked for


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


def test_a_run_that_is_claimed_between_two_looks_is_its_own(suite, monkeypatch):
    begun = suite.folder / "cola" / "second-seed2"
    begun.mkdir(parents=True)

    def unused(folder: Path) -> bool:  # as where another process claims it now
        (folder / "run.json").write_text("{}")
        return False

    monkeypatch.setattr(suite_folder, "unused", unused)
    refuse_strangers(suite.folder)
    assert (begun / "run.json").exists()
