"""Every mistake a user can make ends in one line on standard error, with nothing overwritten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from harness import SPECIAL, WORDS, Material, make_teacher, pretrain


@pytest.fixture
def copy(material: Material, tmp_path: Path) -> Material:
    """The tiny job's files to spoil."""
    for source in (material.teacher, *material.store.parent.glob("store*")):
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / source.name)
    return Material(tmp_path / "teacher", tmp_path / "store", material.other, material.recipe, material.text)


def refused(copy: Material, code: int, *wanted: str, options: tuple = ()) -> None:
    """The job on the spoilt copy must end in one line with all that is wanted in it, and leave no run behind."""
    out = copy.store.parent / "run"
    result = pretrain(
        None, "--recipe", copy.recipe, "--teacher", copy.teacher, "--store", copy.store, "--output_dir", out, *options
    )
    assert result.returncode == code, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    for text in wanted:
        assert text in result.stderr
    assert not out.exists()


def test_no_store_at_the_path(copy):
    refused(copy, 65, "nowhere", "launch/binarize.py", options=("--store", copy.store.parent / "nowhere"))


def test_no_store_that_fits_the_pattern(copy):
    refused(copy, 65, "nowhere-*: no store fits", options=("--store", copy.store.parent / "nowhere-*"))


def test_store_of_another_tokenizer(copy):
    shutil.rmtree(copy.teacher)
    make_teacher(copy.teacher, [*SPECIAL, *reversed(WORDS)])
    refused(copy, 65, str(copy.store), "tokenizer")


def test_store_truncated(copy):
    path = copy.store.with_suffix(".bin")
    path.write_bytes(path.read_bytes()[:-2])
    refused(copy, 65, str(path), "bytes")


def test_store_with_a_flipped_byte(copy):
    path = copy.store.with_suffix(".bin")
    raw = bytearray(path.read_bytes())
    raw[1000] ^= 1
    path.write_bytes(raw)
    refused(copy, 65, str(path), "sha256")


def test_store_with_an_id_beyond_the_vocabulary(copy):
    path = copy.store.with_suffix(".bin")
    raw = bytearray(path.read_bytes())
    raw[1000:1002] = (105).to_bytes(2, "little")  # the vocabulary has 105 ids
    path.write_bytes(raw)
    refused(copy, 65, str(path), "id at byte 1000 is 105")


def test_plain_pair_of_another_program(copy):
    for suffix in (".json", ".order", ".counts.npy"):
        Path(f"{copy.store}{suffix}").unlink()
    refused(copy, 65, "binarize.py adopt", str(copy.store))


def test_a_mixture_with_a_weight_for_one_store_only(copy):
    refused(copy, 78, "every store a weight", options=("--store", f"{copy.store}:0.7", copy.other))


def test_teacher_folder_without_weights(copy):
    (copy.teacher / "model.safetensors").unlink()
    refused(copy, 65, str(copy.teacher), "model.safetensors")


def test_teacher_that_is_not_there(copy):
    refused(copy, 65, "no/such/teacher", options=("--teacher", "no/such/teacher"))


def test_teacher_and_tokenizer_of_different_vocabulary(copy):
    config = json.loads((copy.teacher / "config.json").read_text())
    config["vocab_size"] -= 10
    (copy.teacher / "config.json").write_text(json.dumps(config))
    refused(copy, 65, "vocabulary of 95", "one of 105")


def test_tokenizer_smaller_than_the_teachers_vocabulary(copy):
    config = json.loads((copy.teacher / "config.json").read_text())
    config["vocab_size"] += 200
    (copy.teacher / "config.json").write_text(json.dumps(config))
    refused(copy, 65, "vocabulary of 305", "one of 105")


def test_under_the_launcher_one_rank_speaks_for_all(copy):
    result = pretrain(2, "--recipe", copy.recipe, "--teacher", copy.teacher, "--store", copy.store.parent / "nowhere")
    assert result.returncode != 0
    assert [line for line in result.stderr.splitlines() if line.startswith("error:")] == [
        line for line in result.stderr.splitlines() if "nowhere" in line
    ]
    assert result.stderr.count("nowhere") >= 1 and "Traceback" not in result.stderr


def test_student_layer_out_of_range(copy):
    refused(copy, 78, "layer 4", "4 layers", options=("--student_layers", 0, 4))


def test_student_that_predicts_something_else(copy):
    refused(copy, 78, "student gpt2", "a bert, masked tokens", "give --student same", options=("--student", "gpt2"))


def test_max_length_beyond_the_teachers_positions(copy):
    refused(copy, 78, str(copy.teacher), "64 positions", "give --max_length 64", options=("--max_length", 65))


def test_config_of_a_teacher_with_a_value_of_the_wrong_type(copy):
    config = json.loads((copy.teacher / "config.json").read_text())
    (copy.teacher / "config.json").write_text(json.dumps(config | {"hidden_size": "32"}))
    refused(copy, 65, str(copy.teacher), "config.json", "hidden_size")


def test_bad_json(copy, tmp_path):
    (tmp_path / "bad.json").write_text('{"train_batch_size": "auto",\n "fp16": {]}')
    refused(copy, 78, "bad.json", "line 2", options=("--deepspeed", tmp_path / "bad.json"))


def test_ds_config_against_the_recipe(copy, tmp_path):
    (tmp_path / "two.json").write_text('{"train_batch_size": 64}')
    refused(copy, 78, "two.json", "recipe tiny", "64", "16", options=("--deepspeed", tmp_path / "two.json"))


def test_contradictory_batch_numbers(copy):
    refused(copy, 78, "batch_size 16", "micro_batch_size 5", options=("--micro_batch_size", 5))


def test_max_length_below_the_stores(copy):
    refused(copy, 65, "max_length is 16", options=("--max_length", 16, "--micro_batch_size", 4))


def test_output_directory_of_something_else(copy):
    other = copy.store.parent / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("mine")
    refused(copy, 78, str(other), "--output_dir", options=("--output_dir", other))
    assert [path.name for path in other.iterdir()] == ["thesis.tex"] and (other / "thesis.tex").read_text() == "mine"


def test_unknown_option(copy):
    refused(copy, 78, "--alpha_cs", "--alpha_cos", options=("--alpha_cs", 1))


def test_unknown_recipe(copy):
    refused(
        copy, 78, "distilbert-base-uncasd", "distilbert-base-uncased", options=("--recipe", "distilbert-base-uncasd")
    )
