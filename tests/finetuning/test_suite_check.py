"""What is refused of a suite before its first run, in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fitted import leave, member, results
from harness import SPECIAL, WORDS, make_teacher
from sets import reviews

from distil.errors import ConfigError, DataError, UserError
from distil.finetuning.suite_check import refuse_other_length, refuse_text, shaped
from distil.finetuning.suite_folder import members_of
from distil.finetuning.suite_options import suite_of


@pytest.fixture
def asks(tmp_path, language_model):
    """A suite in the test's folder: what a command asks for."""

    def asks(**given: object):
        models = {"model": str(language_model), "teacher": str(language_model), "max_length": 64}
        return suite_of(models | {"tasks": "sst2", "seeds": 1, "output_dir": str(tmp_path / "out")} | given)

    return asks


def refusal(of) -> str:
    with pytest.raises(UserError) as caught:
        of()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_student_is_cut_as_the_model_is_where_no_shape_is_given(asks, language_model, tmp_path):
    small = str(make_teacher(tmp_path / "small", layers=2))
    assert shaped(asks(model=small)).cut == {}
    assert shaped(asks(model=small, ways="direct")).cut == {"student": "bert", "student_depth": 2}
    assert shaped(asks(model=small, ways="direct", student_layers=(1,))).cut == {"student_layers": (1,)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_length": 65}, "sequences of sst2 have up to 65 tokens"),
        ({"max_length": 0, "tasks": "imdb"}, "sequences of imdb have up to 512 tokens"),  # the task's own
        ({"ways": "direct", "student_layers": (9,)}, "layer 9 is out of range: the teacher has 4 layers"),
        (
            {"ways": "direct", "student": "bret", "student_depth": 2},
            "student bret: no such family (did you mean bert?)",
        ),
    ],
)
def test_models_that_cannot_be_what_they_are_to_be(asks, given, said):
    assert said in refusal(lambda: shaped(asks(**given)))


def test_models_of_two_tokenizers_cannot_teach_one_another(asks, tmp_path):
    other = str(make_teacher(tmp_path / "other", [*SPECIAL, *reversed(WORDS)]))
    shaped(asks(teacher=other, ways="plain,direct"))  # here each reads by its own
    assert "have different tokenizers" in refusal(lambda: shaped(asks(teacher=other, ways="second")))


@pytest.mark.parametrize("which", ["model", "teacher"])
def test_a_model_without_a_tokenizer(asks, which, language_model, tmp_path):
    bare = shutil.copytree(language_model, tmp_path / "bare")
    for path in bare.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    with pytest.raises(DataError, match="no tokenizer loads|vocabulary holds special tokens only"):
        shaped(asks(**{which: str(bare)}))


def texts(folder: Path, *splits: str, label: str = "label") -> None:
    (folder / "SST-2").mkdir(parents=True)
    for split in splits:
        rows = [f"{text}\t{int(word == 'good')}" for text, word in reviews(5, 1)]
        (folder / "SST-2" / f"{split}.tsv").write_text("\n".join([f"sentence\t{label}", *rows]) + "\n")


def test_texts_are_all_there_or_it_is_said_which_are_not(asks, tmp_path):
    texts(tmp_path / "data", "train", "dev")
    asked = asks(data=str(tmp_path / "data"), tasks="sst2,rte")
    sst2, rte = (member(asked, name, "student", 1) for name in ("sst2", "rte"))
    refuse_text([sst2])
    refuse_text([member(asks(tasks="rte"), "rte", "student", 1)])  # the hub's
    assert "holds no train.csv" in refusal(lambda: refuse_text([sst2, rte]))
    assert "no such folder" in refusal(lambda: refuse_text([member(asks(data="no/where"), "sst2", "student", 1)]))


@pytest.mark.parametrize(
    ("splits", "label", "said"), [(("dev",), "label", "train.tsv"), (("train", "dev"), "l", "no c")]
)
def test_a_split_or_column_that_is_not_there(asks, tmp_path, splits, label, said):
    texts(tmp_path / "data", *splits, label=label)
    asked = asks(data=str(tmp_path / "data"))
    assert said in refusal(lambda: refuse_text(members_of(asked)))


def test_a_teacher_that_has_taught_is_not_trained_on(asks):
    """A second distillation is of the teacher as it was, and would be another run."""
    asked = asks(ways="second", max_steps=10)
    teacher, pupil = members_of(asked)
    leave(teacher, results("sst2", 50.0, step=10))
    teacher.note({"total_steps": 30})
    refuse_other_length(asks(ways="second"), members_of(asks(ways="second")))  # has taught nobody yet
    leave(pupil, results("sst2", 50.0))
    for fine in (10, 5):
        asked = asks(ways="second", max_steps=fine)
        refuse_other_length(asked, members_of(asked))
    for given in ({"ways": "second"}, {"max_steps": 20}):  # also where only the teacher itself is asked for
        asked = asks(**given)
        with pytest.raises(ConfigError) as caught:
            refuse_other_length(asked, members_of(asked))
        assert str(caught.value) == (
            f"{pupil.folder} was taught by its teacher as that was after 10 steps, and trained on it is another "
            "teacher; give --max_steps 10 again, or another --output_dir"
        )
    teacher.note({"total_steps": 10})
    refuse_other_length(asked, members_of(asked))
