"""Models for a task from folders: heads that are kept, made anew, or refused."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from tasks import KINDS, LABELS, a_task, tiny_task
from tiny import tiny

from distil.errors import ConfigError, DataError
from distil.models.families import FAMILIES
from distil.models.task_heads import HEAD, task_family
from distil.models.task_loading import load_fitted_model, load_task_model
from distil.tasks.catalogue import find
from distil.tasks.task import CLASSIFICATION, REGRESSION, SPANS, Task

every_kind = pytest.mark.parametrize("kind", KINDS)
every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def folder(tmp_path):
    """Saves a model, with some values of its config.json changed; returns its name."""

    def save(model, **changes) -> str:
        where = tmp_path / "model"
        model.save_pretrained(where)
        stated = json.loads((where / "config.json").read_text())
        (where / "config.json").write_text(json.dumps(stated | changes))
        return str(where)

    return save


def start(name: str, task: Task, seed: int = 0, dtype: torch.dtype = torch.float32):
    return load_task_model(name, task, dtype, seed)


def refusal(load, *arguments, kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        load(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def named(labels: tuple[str, ...]) -> dict:
    return {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}


@every_kind
@every_family
def test_a_language_model_starts_with_a_head_of_its_own(folder, family, kind):
    language = tiny(family)
    name, task = folder(language), a_task(kind)
    model, of_task, fresh = start(name, task)
    theirs, ours = language.state_dict(), model.state_dict()
    # ModernBERT's heads go through the same layer as its language model's, which is kept as transformers keeps it.
    heads = {f"{path}." for common, path in of_task.modules.items() if common.startswith(HEAD)} - {"head."}
    assert set(fresh) == {key for key in ours if key.startswith(tuple(heads))}
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if key not in fresh)
    assert all(ours[key].any() or key.endswith("bias") for key in fresh)
    assert type(model) is of_task.model_class and of_task is task_family(FAMILIES[family], kind)
    assert model.training and all(p.requires_grad for p in model.parameters())


@every_kind
def test_the_head_is_drawn_from_the_seed_alone(folder, kind):
    name, task = folder(tiny("bert")), a_task(kind)
    torch.manual_seed(1)
    one, _, fresh = start(name, task, 5)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    same, other = start(name, task, 5)[0].state_dict(), start(name, task, 6)[0].state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(tensor, same[key]) for key, tensor in one.state_dict().items())
    weights = [key for key in fresh if key.endswith("weight")]
    assert weights and not any(torch.equal(same[key], other[key]) for key in weights)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_kind
@every_family
def test_a_fitted_model_is_taken_whole(folder, family, kind, dtype):
    fitted = tiny_task(family, kind)
    name, task = folder(fitted), a_task(kind)
    started, _, fresh = start(name, task, dtype=dtype)
    found, of_task = load_fitted_model(name, task, dtype)
    assert fresh == () and of_task.name == family
    assert not any(m.training for m in found.modules()) and not any(p.requires_grad for p in found.parameters())
    for model in (started, found):
        ours = model.state_dict()
        assert ours.keys() == fitted.state_dict().keys()
        assert all(torch.equal(ours[key], tensor.to(dtype)) for key, tensor in fitted.state_dict().items())


@every_kind
def test_the_config_says_what_it_is_for(folder, kind, tmp_path):
    model, of_task, _ = start(folder(tiny("gpt2")), a_task(kind))
    model.save_pretrained(tmp_path / "again")
    stated = type(model.config).from_pretrained(tmp_path / "again")
    names = LABELS if kind == CLASSIFICATION else ("LABEL_0", "LABEL_1")[: 1 if kind == REGRESSION else 2]
    assert stated.id2label == dict(enumerate(names)) and stated.num_labels == len(names)
    assert stated.label2id == {name: i for i, name in enumerate(names)}
    problems = {CLASSIFICATION: "single_label_classification", REGRESSION: "regression", SPANS: None}
    assert stated.problem_type == problems[kind] and stated.finetuning_task == "mine"
    assert stated.pad_token_id == stated.eos_token_id == 0  # a GPT-2 has no pad of its own
    assert load_fitted_model(str(tmp_path / "again"), a_task(kind), torch.float32)[1] is of_task


def test_a_pad_that_is_there_stays(folder):
    assert start(folder(tiny("gpt2", pad_token_id=3)), a_task())[0].config.pad_token_id == 3
    assert start(folder(tiny("roberta")), a_task())[0].config.pad_token_id == 1


# --- what is started from a model of another task --------------------------------------------------------------------


@pytest.mark.parametrize("labels", [("yes", "no"), ("good", "fair", "bad")], ids=["fewer", "in another order"])
@pytest.mark.parametrize(("family", "decoder"), [("distilbert", "classifier"), ("roberta", "classifier.out_proj")])
def test_the_last_layer_is_new_where_labels_are_others(folder, family, decoder, labels):
    fitted = tiny_task(family, CLASSIFICATION, num_labels=len(labels))
    name = folder(fitted, **named(labels))
    model, _, fresh = start(name, a_task(), 3)
    assert fresh == (f"{decoder}.bias", f"{decoder}.weight")
    theirs, ours = fitted.state_dict(), model.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if key not in fresh)
    again = start(name, a_task(), 3)[0].get_submodule(decoder)
    found = model.get_submodule(decoder)
    assert found.weight.shape == (3, 32) and torch.equal(found.weight, again.weight) and not found.bias.any()
    assert found.weight.std() < 0.1 and model.config.id2label == dict(enumerate(LABELS))  # 0.02, and not 0.2


def test_a_head_of_another_kind_is_not_kept(folder):
    # ModernBERT's have the same names in every kind of model.
    task = a_task(labels=("no", "yes"))
    _, _, fresh = start(folder(tiny_task("modernbert", SPANS)), task)
    assert fresh == ("classifier.bias", "classifier.weight")
    message = refusal(load_fitted_model, folder(tiny_task("modernbert", SPANS)), task, torch.float32)
    assert "its class is ModernBertForQuestionAnswering" in message


def test_an_encoder_alone_is_enough_to_start(folder):
    encoder = tiny_task("bert", CLASSIFICATION).bert
    model, _, fresh = start(folder(encoder), a_task())
    assert fresh == ("classifier.bias", "classifier.weight")  # it has its pooler
    assert torch.equal(model.bert.pooler.dense.weight, encoder.pooler.dense.weight)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "load", [lambda n: start(n, a_task()), lambda n: load_fitted_model(n, a_task(), torch.float32)]
)
def test_an_encoder_must_be_whole(folder, load):
    fitted = tiny_task("bert", CLASSIFICATION)
    message = refusal(load, folder(fitted, num_hidden_layers=5))
    assert "has 16 tensors less than its config.json says, such as bert.encoder.layer.4" in message
    message = refusal(load, folder(fitted, intermediate_size=50))
    assert "has 12 tensors of other shapes than its config.json says, such as bert.encoder.layer.0" in message


@every_kind
def test_a_language_model_is_no_teacher(folder, kind):
    name = folder(tiny("distilbert"))
    message = refusal(load_fitted_model, name, a_task(kind), torch.float32)
    assert f"model {name} is no DistilBertFor" in message and "its class is DistilBertForMaskedLM" in message
    assert f"launch/finetune.py --task mine --model {name}" in message


@every_kind
def test_a_head_that_is_missing_is_named(folder, kind):
    name = folder(tiny("distilbert"), architectures=None, num_labels=a_task(kind).outputs)
    message = refusal(load_fitted_model, name, a_task(kind), torch.float32)
    missing = "2 tensors such as qa_outputs.bias" if kind == SPANS else "4 tensors such as classifier.bias"
    assert f"{missing} are missing; fit it first" in message


@pytest.mark.parametrize("labels", [("good", "fair", "bad"), ("bad", "good"), ("a", "b", "c")])
def test_a_teacher_of_other_labels_is_refused(folder, labels):
    name = folder(tiny_task("bert", CLASSIFICATION, num_labels=len(labels)), **named(labels))
    message = refusal(load_fitted_model, name, a_task(), torch.float32)
    assert f"model {name} says {', '.join(labels)}, the task mine asks for bad, fair, good" in message


def test_a_teacher_of_another_number_of_unnamed_labels_is_refused(folder):
    name = folder(tiny_task("bert", CLASSIFICATION, num_labels=2))
    assert "says LABEL_0, LABEL_1, the task" in refusal(load_fitted_model, name, a_task(), torch.float32)
    message = refusal(load_fitted_model, name, a_task(REGRESSION), torch.float32)
    assert "says LABEL_0, LABEL_1, the task mine asks for a single value" in message


def test_spans_are_of_the_task_they_were_fitted_to(folder):
    """They have no labels that could tell: SQuAD 2.0 asks of its model what that of 1.1 was never taught."""
    name = folder(tiny_task("bert", SPANS), finetuning_task="squad")
    load_fitted_model(name, find("squad"), torch.float32)
    message = refusal(load_fitted_model, name, find("squad_v2"), torch.float32)
    assert "is fitted to squad; fit it first: launch/finetune.py --task squad_v2" in message


def test_labels_differ_by_more_than_capitals(folder):
    name = folder(tiny_task("bert", CLASSIFICATION), **named(tuple(name.upper() for name in LABELS)))
    model, _ = load_fitted_model(name, a_task(), torch.float32)
    assert model.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize(
    "load", [lambda n: start(n, a_task()), lambda n: load_fitted_model(n, a_task(), torch.float32)]
)
def test_weights_are_safetensors(folder, load, tmp_path):
    name, fitted = folder(tiny_task("bert", CLASSIFICATION)), tiny_task("bert", CLASSIFICATION)
    (tmp_path / "model" / "model.safetensors").unlink()
    torch.save(fitted.state_dict(), tmp_path / "model" / "pytorch_model.bin")
    assert "model.safetensors" in refusal(load, name)


def test_a_model_of_no_known_family(folder):
    shape = transformers.ElectraConfig(
        vocab_size=31, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20
    )
    name = folder(transformers.ElectraForSequenceClassification(shape))
    assert "electra" in refusal(load_fitted_model, name, a_task(), torch.float32, kind=ConfigError)
    assert "electra" in refusal(start, name, a_task(), kind=ConfigError)
