"""A job whose student has a tokenizer of its own: whose ids are whose, and which tokenizers are refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from families import LENGTH, make_job, refused, settled
from harness import SPECIAL, WORDS, make_teacher

from distil import prepare
from distil.config import Recipe
from distil.data.binarize import binarize
from distil.data.sources import files
from distil.data.tokenizer import load_tokenizer
from distil.data.trimming import restricted
from distil.errors import DataError
from distil.job import Job
from distil.models.loading import load_model
from distil.summary import describe

pytestmark = pytest.mark.usefixtures("one_thread")

ONLY_MLM = {"alpha_ce": 0.0, "alpha_cos": 0.0}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny jobs; "more" of the first is a tokenizer of three tokens that its teacher lacks."""
    root = tmp_path_factory.mktemp("jobs")
    for case in ("bert", "roberta", "trimmed"):
        make_job(root / case, case)
    theirs = load_tokenizer(root / "bert" / "teacher").get_vocab()
    more = {"zebra": 0, **{token: id_ + 1 for token, id_ in theirs.items()}, "yak": 136, "##q": 137}
    transformers.BertTokenizerFast(vocab=more).save_pretrained(root / "bert" / "more")
    store_of(root / "bert", "more")
    return root


def store_of(folder: Path, tokenizer: str) -> str:
    """A store of a job's text by another tokenizer in its folder."""
    prefix = folder / f"{tokenizer}-store"
    binarize(
        files([folder / "text.txt"]), load_tokenizer(folder / tokenizer), prefix, max_length=LENGTH, progress=False
    )
    return str(prefix)


def changed(teacher: Path, **values: object) -> str:
    """A teacher's folder with other values in its config."""
    config = json.loads((teacher / "config.json").read_text())
    (teacher / "config.json").write_text(json.dumps(config | values))
    return str(teacher)


def logits(model: transformers.PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids).logits


def test_the_teachers_own_tokenizer_in_another_folder(jobs, tmp_path):
    load_tokenizer(jobs / "bert" / "teacher").save_pretrained(tmp_path / "copy")
    job, plain = settled(jobs / "bert", tokenizer=str(tmp_path / "copy")), settled(jobs / "bert")
    assert job.vocabulary is None and job.teacher_config.vocab_size == plain.teacher_config.vocab_size
    one, other = job.identity(), plain.identity()
    assert one["tokenizer"] == other["tokenizer"] and one["store"] == other["store"]
    assert len(job.load_teacher(torch.float32)[0].get_input_embeddings().weight) == plain.teacher_config.vocab_size


def check_restricted(job: Job) -> None:
    """Teacher and student of a job must be over its tokenizer's ids, the teacher with the logits that it had."""
    own, theirs = job.tokenizer, load_tokenizer(job.teacher)
    size = len(own)
    assert job.vocabulary.tolist() == theirs.convert_tokens_to_ids(own.convert_ids_to_tokens(range(size)))
    assert size < len(theirs) and job.vocabulary.tolist() != list(range(size))
    assert job.teacher_config.vocab_size == size
    # Each logit is a sum of the same products; their order may hang on how many rows a matrix has: so in doubles.
    whole, (part, _) = load_model(job.teacher, torch.float64)[0], job.load_teacher(torch.float64)
    ids = torch.from_numpy(job.batcher().batch(0).input_ids_N.numpy()[None, :LENGTH])
    kept = torch.from_numpy(job.vocabulary)
    wanted, found = logits(whole, kept[ids])[..., kept], logits(part, ids)
    assert wanted.std() > 0.1 and torch.allclose(found, wanted, rtol=0, atol=1e-12)
    student = job.make_student(part).model
    rows = student.get_input_embeddings().weight
    assert len(rows) == student.config.vocab_size == student.get_output_embeddings().out_features == size
    assert torch.equal(rows.double(), whole.get_input_embeddings().weight[kept])
    for config in (student.config, part.config, job.teacher_config):
        assert config.pad_token_id == own.pad_token_id


def test_a_trimmed_tokenizer(jobs):
    job = settled(jobs / "trimmed")
    check_restricted(job)
    vocabulary = f"  vocabulary      {len(job.tokenizer)} ids of {jobs / 'trimmed' / 'tokenizer'}, of both models\n"
    assert vocabulary in describe(job) and "vocabulary" not in describe(settled(jobs / "bert"))
    assert job.identity()["tokenizer"] != settled(jobs / "bert").identity()["tokenizer"]


def test_a_pad_that_comes_last_moves_with_the_others(tmp_path):
    # As ModernBERT has it: the teacher's pad is no number of the student's any more.
    letters = sorted(set("".join(WORDS)))
    words = [*SPECIAL[1:], *WORDS, *letters, *(f"##{letter}" for letter in letters), SPECIAL[0]]
    make_job(tmp_path / "job", "bert")
    folder, pad = tmp_path / "job", len(words) - 1
    shutil.rmtree(folder / "teacher")
    changed(make_teacher(folder / "teacher", words), pad_token_id=pad)
    whole = load_tokenizer(folder / "teacher")
    small, ids = restricted(whole, set(range(3, 40)))
    small.save_pretrained(folder / "small")
    assert whole.pad_token_id == pad >= len(ids)
    job = settled(folder, tokenizer=str(folder / "small"), store=(store_of(folder, "small"),))
    check_restricted(job)
    assert "  student " in describe(job)


@pytest.mark.parametrize(
    "changes", [{}, {"alpha_ce": 0.0, "alpha_mse": 1.0}, {"alpha_ce": 1.0, "alpha_mlm": 0.0}, {"kd_until": 0.5}]
)
def test_tokens_that_the_teacher_lacks_where_logits_are_compared(jobs, changes):
    folder = jobs / "bert"
    how = {"tokenizer": str(folder / "more"), "store": (f"{folder / 'more'}-store",)}
    said = refused(folder, **how, **changes)
    assert said.startswith(
        f"tokenizer {folder / 'more'} has 3 tokens that teacher {folder / 'teacher'} has not, such as "
    )
    assert "'zebra'" in said and "binarize.py trim" in said and "--alpha_ce 0 --alpha_mse 0" in said


@pytest.mark.parametrize(
    "changes", [{"alpha_ce": 0.0}, ONLY_MLM, ONLY_MLM | {"alpha_mlm": 0.0, "alpha_hidden": 1.0}]
)  # fmt: skip
def test_tokens_that_the_teacher_lacks_where_no_logits_are_compared(jobs, changes):
    folder = jobs / "bert"
    job = settled(folder, tokenizer=str(folder / "more"), store=(f"{folder / 'more'}-store",), **changes)
    teacher, student = load_tokenizer(job.teacher), job.tokenizer
    assert len(student) == len(teacher) + 3 == len(job.vocabulary)
    for token in ("zebra", "yak", "##q"):
        assert job.vocabulary[student.convert_tokens_to_ids(token)] == teacher.unk_token_id
    for token in ("bob", "[MASK]"):
        assert job.vocabulary[student.convert_tokens_to_ids(token)] == teacher.convert_tokens_to_ids(token)
    model, _ = job.load_teacher(torch.float32)
    assert len(job.make_student(model).model.get_input_embeddings().weight) == len(student)
    predicted = job.batcher().batch(0).labels_N
    assert predicted.max() < len(student) and job.counts(job.global_batch(0)).predicted > 0


def test_a_pad_from_which_positions_are_counted_must_stay(jobs, tmp_path):
    folder = jobs / "roberta"
    shutil.copytree(folder / "teacher", tmp_path / "moved", ignore=shutil.ignore_patterns("*.safetensors", "config.*"))
    path = tmp_path / "moved" / "tokenizer.json"
    text = json.loads(path.read_text())
    numbers = {"<s>": 1, "<pad>": 0}  # the other way round than the teacher has them
    text["model"]["vocab"] |= numbers
    for token in text["added_tokens"]:
        token["id"] = numbers.get(token["content"], token["id"])
    text["added_tokens"].sort(key=lambda token: token["id"])
    path.write_text(json.dumps(text))
    assert (load_tokenizer(tmp_path / "moved").pad_token_id, load_tokenizer(folder / "teacher").pad_token_id) == (0, 1)
    said = refused(folder, tokenizer=str(tmp_path / "moved"))
    assert said.startswith(
        "positions of a roberta are counted from its pad, id 1, which is another token of the student's"
    )
    assert "give it one whose pad has that id" in said


@pytest.mark.parametrize(("case", "tokenizer"), [("trimmed", ""), ("bert", "more")])
def test_a_store_of_another_tokenizer(jobs, case, tokenizer):
    folder = jobs / case
    chosen = str(folder / tokenizer) if tokenizer else ""
    said = refused(folder, DataError, tokenizer=chosen, **ONLY_MLM)
    assert said.startswith(f"{folder / 'store'}: built with tokenizer {folder}") and "rebuild the store" in said
    assert re.search(rf"than {chosen or folder / 'teacher'} ", said)


def test_sample_texts_are_prepared_by_the_students_tokenizer(jobs, tmp_path, monkeypatch):
    folder = jobs / "trimmed"
    monkeypatch.setattr(prepare, "prepared", lambda: tmp_path)
    monkeypatch.setattr(prepare.samples, "texts", lambda name: (folder / "text.txt").read_text().splitlines())
    recipe = Recipe.load(str(folder / "tiny.toml"), {"store": ["sample:text"]})
    prepare.prepare_stores(recipe, str(folder / "teacher"))  # by one rank, before all open what it made
    made = {path.name for path in tmp_path.iterdir()}
    job = settled(folder, store=("sample:text",))
    assert {path.name for path in tmp_path.iterdir()} == made
    assert job.mixture.stores[0].meta.vocab_size == len(job.tokenizer)


def test_a_tokenizer_that_is_not_there(jobs):
    nowhere = str(jobs / "nowhere")
    assert refused(jobs / "bert", DataError, tokenizer=nowhere).startswith(
        f"{nowhere}: no such folder; name a tokenizer"
    )


@pytest.mark.parametrize("more", [-1, 128, 5000])
def test_a_vocabulary_that_is_not_the_tokenizers(jobs, tmp_path, more):
    teacher = shutil.copytree(jobs / "bert" / "teacher", tmp_path / "teacher")
    said = refused(jobs / "bert", DataError, teacher=changed(teacher, vocab_size=135 + more))
    assert said.startswith(f"teacher {teacher} has a vocabulary of {135 + more}, its tokenizer one of 135: ")
    assert "put the tokenizer there that it was trained with" in said


@pytest.mark.parametrize("more", [1, 127])
def test_a_padded_vocabulary_is_the_students_too(jobs, tmp_path, more):
    model = transformers.BertForMaskedLM.from_pretrained(jobs / "bert" / "teacher")
    model.resize_token_embeddings(135 + more)
    shutil.copytree(jobs / "bert" / "teacher", tmp_path / "teacher")
    model.save_pretrained(tmp_path / "teacher")
    job = settled(jobs / "bert", teacher=str(tmp_path / "teacher"))
    assert job.vocabulary is None and len(job.tokenizer) == 135
    teacher, _ = job.load_teacher(torch.float32)
    student = job.make_student(teacher).model
    assert len(student.get_input_embeddings().weight) == student.config.vocab_size == 135 + more
    assert torch.equal(student.get_input_embeddings().weight, teacher.get_input_embeddings().weight)
