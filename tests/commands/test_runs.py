"""What a run left and who taught in it: found where it was, refused where it is not or has changed."""

from __future__ import annotations

import json
import shutil

import pytest

from distil.commands.runs import export_of, teacher_of
from distil.config import Recipe
from distil.errors import DataError
from distil.models.loading import load_config, weights_fingerprint
from distil.prepare import fitted


@pytest.fixture
def run(folder_of, tmp_path):
    """A run whose teacher is a name in its recipe; the weights are those of a tiny BERT, wherever that is put."""
    weights = weights_fingerprint(str(folder_of("bert")), load_config(str(folder_of("bert"))))

    def make(teacher: str, **loss: float) -> object:
        (tmp_path / "run").mkdir(exist_ok=True)
        loss = {"temperature": 2.0, "alpha_ce": 5.0, "alpha_mlm": 2.0, "alpha_cos": 0.0} | loss
        identity = {"mathematics": {"model": {"teacher": teacher}, "loss": loss}, "teacher": weights}
        (tmp_path / "run" / "run.json").write_text(json.dumps(identity))
        return tmp_path / "run"

    return make


def test_a_teacher_by_its_folder(run, folder_of):
    assert teacher_of(run(str(folder_of("bert")))) == str(folder_of("bert"))


def test_teachers_that_were_prepared(run, folder_of, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path / "cache"))
    of_recipe = fitted(Recipe.load("quickstart-teacher")) / "student"
    for name, place in (
        ("recipe:quickstart-teacher", of_recipe),
        ("sample:minilm-l6", tmp_path / "cache" / "minilm-l6"),
    ):
        shutil.copytree(folder_of("bert"), place)
        assert teacher_of(run(name)) == str(place)


def test_a_teacher_that_has_gone_or_changed_is_refused(run, folder_of, tmp_path):
    for teacher, said in ((tmp_path / "gone", "no model folder"), (folder_of("bert", seed=1), "has other weights now")):
        with pytest.raises(DataError) as caught:
            teacher_of(run(str(teacher)))
        message = str(caught.value)
        assert said in message and str(teacher) in message and "give --teacher" in message and "\n" not in message


def test_what_gave_the_initial_weights_alone_is_no_teacher(run, folder_of):
    assert teacher_of(run(str(folder_of("bert")), alpha_ce=0.0)) is None


def test_a_fine_tuning_does_not_say_where_its_teacher_lay(run, tmp_path):
    (run("x") / "run.json").write_text(json.dumps({"fine-tuning": {}, "weights": {}}))
    assert teacher_of(tmp_path / "run") is None


@pytest.mark.parametrize("text", ["", "[]", '{"mathematics": {}}', '{"mathematics": 3}'])
def test_a_damaged_run_is_refused(run, text):
    folder = run("x")
    (folder / "run.json").write_text(text)
    with pytest.raises(DataError, match="run.json cannot be read"):
        teacher_of(folder)


def test_the_export_of_either_kind_of_run(tmp_path):
    with pytest.raises(DataError, match="has exported no model yet"):
        export_of(tmp_path)
    for name in ("model", "student"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        assert export_of(tmp_path) == str(tmp_path / name)
