"""What a fine-tuning comes to before a model is trained, and what is refused then, in one line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from harness import SPECIAL, WORDS, make_teacher
from safetensors.torch import load_file, save_file
from sets import reviews, write_csv, write_squad

from distil.errors import ConfigError, DataError, UserError
from distil.finetuning.job import FineTuningJob, settle
from distil.finetuning.options import numbers_of
from distil.finetuning.run import load_models
from distil.placement import place


@pytest.fixture
def files(tmp_path):
    return {
        "train": str(write_csv(tmp_path / "train.csv", reviews(50, 1))),
        "validation": str(write_csv(tmp_path / "validation.csv", reviews(30, 2))),
    }


@pytest.fixture
def settled(ranks, language_model):
    """Settles a job of the numbers given, on this rank alone."""

    def settled(**given) -> FineTuningJob:
        numbers = numbers_of({"model": str(language_model), "max_length": 32} | given)
        placement = place("ds_config/zero1.json", numbers, 1, "cpu", ("fp32",), "auto")
        return settle(numbers, placement, None, ranks)

    return settled


def test_numbers_follow_from_the_text(settled, files):
    job = settled(**files, epochs=3, batch_size=16, micro_batch_size=8)
    assert job.total_steps == 10 == -(-3 * 50 // 16) and job.stop_step == 10  # 150 sequences, the last step filled up
    assert job.name == "finetune-local" and job.task.labels == ("bad", "good") and job.warnings == ()
    assert [len(split.examples) for split in job.splits] == [30] and job.train_examples == 50


def test_a_subset_is_the_same_for_every_seed_and_another_run(settled, files):
    one, other = (settled(**files, train_examples=20, seed=seed) for seed in (1, 2))
    assert one.train.input_ids.tolist() == other.train.input_ids.tolist() and one.train_examples == 20
    assert one.identity() != other.identity()
    assert one.identity()["text"] == other.identity()["text"] != settled(**files).identity()["text"]


def test_a_run_is_known_by_what_it_reads_not_by_where_that_lies(settled, files, tmp_path, language_model):
    moved = {split: str(shutil.copy(path, tmp_path / f"copy-{split}.csv")) for split, path in files.items()}
    model = shutil.copytree(language_model, tmp_path / "model")
    assert settled(**moved, model=str(model)).identity() == settled(**files).identity()
    write_csv(tmp_path / "copy-validation.csv", reviews(30, 3))
    assert settled(**moved).identity() != settled(**files).identity()


def test_whose_teacher_it_is_is_part_of_the_run(settled, files, tmp_path, language_model):
    """Also where no term of the loss compares with it: a student is cut from it, and it is judged beside."""
    other = shutil.copytree(language_model, tmp_path / "other")
    weights = load_file(other / "model.safetensors")
    name = next(name for name in weights if name.endswith("query.weight"))
    save_file(weights | {name: weights[name] + 1}, other / "model.safetensors", {"format": "pt"})
    cut = {"model": "", "student_depth": 2, "alpha_ce": 0.0, "alpha_cos": 0.0}
    identities = [
        settled(**files, **given).identity()
        for given in (
            {},
            {"teacher": str(other), "alpha_ce": 0.0, "alpha_task": 1.0},
            {"teacher": str(other), **cut},
            {"teacher": str(language_model), **cut},
        )
    ]
    assert all(one != other for i, one in enumerate(identities) for other in identities[:i])


def test_names_of_classes_are_part_of_the_run(settled, files, tmp_path):
    before = settled(**files).identity()
    for path in files.values():
        text = Path(path).read_text()
        Path(path).write_text(text.replace(",good", ",great"))
    assert settled(**files).identity() != before


def test_overlap_is_told_with_its_count(settled, files, tmp_path):
    both = reviews(30, 2)
    twins = [(f"  {text.upper()} ", label) for text, label in both[:7]]
    files["train"] = str(write_csv(tmp_path / "train.csv", reviews(40, 9) + twins))
    job = settled(**files)
    assert job.warnings == ("7 of 30 examples of validation are in train, too: figures flatter",)


def test_cut_and_empty_texts_are_told(settled, tmp_path):
    rows = [(" ".join(WORDS[:40]), "good"), (" ".join(WORDS[5:45]), "bad"), ("", "bad")]
    files = {
        "train": str(write_csv(tmp_path / "train.csv", rows)),
        "validation": str(write_csv(tmp_path / "v.csv", reviews(9, 2))),
    }
    warnings = settled(**files, max_length=12).warnings
    assert "1 of 3 examples of train have an empty text" in warnings
    assert "2 of 3 sequences of train fill all 12 tokens: most are cut" in warnings


def test_windows_count_as_sequences(settled, tmp_path):
    write_squad(tmp_path / "train-v1.1.json", 20, 1)
    write_squad(tmp_path / "dev-v1.1.json", 5, 2)
    job = settled(task="squad", data=str(tmp_path), stride=4, max_length=16, batch_size=8, micro_batch_size=8, epochs=1)
    assert job.train_examples == 20 < len(job.train) and job.total_steps == -(-len(job.train) // 8)


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        ({"task": "imbd"}, ConfigError, "no task imbd (did you mean imdb?)"),
        ({"text_columns": ("texts",)}, ConfigError, "did you mean text?"),
        ({"label_column": "lable"}, ConfigError, "did you mean label?"),
        ({"train": "nowhere.csv"}, DataError, "nowhere.csv"),
        ({"validation": ""}, ConfigError, "neither a validation nor a test file"),
        ({"model": "runs/nowhere/student"}, DataError, "no model folder runs/nowhere/student"),
        ({"max_length": 99}, ConfigError, "64 positions; give --max_length 64 or less"),
        ({"max_length": 2}, ConfigError, "no room for text"),
        ({"task": "sst2"}, ConfigError, "sentence"),
        ({"task": "sst2", "text_columns": ("text", "label")}, ConfigError, "sst2 reads 1: sentence"),
        ({"task": "mrpc", "text_columns": ("text",)}, ConfigError, "mrpc reads 2: sentence1, sentence2"),
        ({"task": "squad", "text_columns": ("text",)}, ConfigError, "squad reads 2: question, context"),
        ({"task": "sst2", "text_columns": ("label",), "label_column": "label"}, ConfigError, "must differ"),
    ],
)
def test_a_mistake_is_refused(settled, files, given, kind, said):
    with pytest.raises(kind) as caught:
        settled(**(files | given))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_task_by_its_name_on_columns_of_another_name(settled, files, tmp_path):
    named = [(text, {"bad": "0", "good": "1"}[label]) for text, label in reviews(30, 3)]
    files = {split: str(write_csv(tmp_path / f"{split}.csv", named, "body,stars")) for split in files}
    job = settled(**files, task="sst2", text_columns=("body",), label_column="stars")
    assert job.task.name == "sst2" and job.task.labels == ("negative", "positive") and len(job.train) == 30


def test_labels_that_training_has_not(settled, files, tmp_path):
    files["validation"] = str(write_csv(tmp_path / "v.csv", [*reviews(5, 2), ("ba be", "middling")]))
    with pytest.raises(DataError, match=r"v\.csv.*(row|line) 7.*middling"):
        settled(**files)


def test_an_empty_split(settled, files, tmp_path):
    files["validation"] = str(write_csv(tmp_path / "v.csv", []))
    with pytest.raises(DataError, match=r"v\.csv.*holds no example"):
        settled(**files)


def test_a_model_without_tokenizer(settled, files, tmp_path, language_model):
    bare = shutil.copytree(language_model, tmp_path / "bare")
    for path in bare.iterdir():
        if path.name not in ("config.json", "model.safetensors"):
            path.unlink()
    with pytest.raises(DataError, match="no tokenizer loads|vocabulary holds special tokens only"):
        settled(**files, model=str(bare))


def test_a_tokenizer_of_another_model(settled, files, tmp_path, language_model):
    small = make_teacher(tmp_path / "small", [*SPECIAL, *WORDS[:50]])
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(language_model / name, small / name)
    with pytest.raises(DataError, match="has a vocabulary of 55, its tokenizer one of 105"):
        settled(**files, model=str(small))


def test_text_that_no_tokenizer_takes(settled, tmp_path):
    rows = [json.dumps({"text": text, "label": i % 2}) for i, text in enumerate(("ba", "be \ud83d", "bi"))]
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    with pytest.raises(DataError, match=r"a\.jsonl: line 2: text holds half a character"):
        settled(train=str(tmp_path / "a.jsonl"), validation=str(tmp_path / "a.jsonl"))


def test_models_of_two_tokenizers(settled, files, tmp_path):
    other = make_teacher(tmp_path / "other", [*SPECIAL, *reversed(WORDS)])
    with pytest.raises(ConfigError, match="have different tokenizers"):
        settled(**files, teacher=str(other))


def test_a_teacher_that_is_fitted_to_nothing(settled, files, language_model):
    job = settled(**files, teacher=str(language_model))
    with pytest.raises(UserError) as caught:
        load_models(job)
    assert "fit it first" in str(caught.value) and "\n" not in str(caught.value)
