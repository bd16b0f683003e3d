"""Models from folders: what is whole loads, what is not is refused in one line that names the folder."""

from __future__ import annotations

import json

import pytest
import torch
import transformers

from distil.errors import ConfigError, DataError
from distil.models.loading import load_config, load_model

BERT = transformers.BertConfig(
    vocab_size=31, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20,
    max_position_embeddings=12,
)  # fmt: skip
DISTILBERT = transformers.DistilBertConfig(
    vocab_size=31, dim=16, n_layers=2, n_heads=2, hidden_dim=20, max_position_embeddings=12
)
MODELS = {"bert": (transformers.BertForMaskedLM, BERT), "distilbert": (transformers.DistilBertForMaskedLM, DISTILBERT)}


@pytest.fixture
def saved(tmp_path):
    def save(family: str = "bert"):
        kind, config = MODELS[family]
        model = kind(config)
        model.save_pretrained(tmp_path / "model")
        return tmp_path / "model", model

    return save


def refusal(folder, kind: type[Exception] = DataError) -> str:
    with pytest.raises(kind) as caught:
        load_model(str(folder), torch.float32)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", MODELS)
def test_a_whole_folder_loads(saved, family, dtype):
    folder, model = saved(family)
    found, of_family = load_model(str(folder), dtype)
    assert of_family.name == family and type(found) is type(model)
    assert not found.training and not any(m.training for m in found.modules())
    assert all(not p.requires_grad and p.dtype == dtype for p in found.parameters())
    theirs = model.state_dict()
    assert found.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name].to(dtype)) for name, tensor in found.state_dict().items())


def test_the_config_is_the_folders(saved):
    folder, _ = saved()
    assert load_config(str(folder)).hidden_size == 16


def test_no_folder_and_no_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refusal("no-such-model-here")
    assert "no-such-model-here" in message and "no folder of that name" in message


def test_a_path_is_not_asked_of_the_hub(tmp_path):
    message = refusal(tmp_path / "nowhere")
    assert str(tmp_path / "nowhere") in message and "no model folder" in message


@pytest.mark.parametrize("damage", ["absent", "", "{", "[]"])
def test_a_folder_without_a_usable_config(saved, damage):
    folder, _ = saved()
    if damage == "absent":
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_text(damage)
    message = refusal(folder)
    assert str(folder) in message and "config.json" in message


def test_a_folder_without_weights(saved):
    folder, _ = saved()
    (folder / "model.safetensors").unlink()
    message = refusal(folder)
    assert str(folder) in message and "model.safetensors" in message and "missing" in message


def test_pickled_weights_are_not_weights(saved):
    folder, model = saved()
    (folder / "model.safetensors").unlink()
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    assert "model.safetensors" in refusal(folder)


@pytest.mark.parametrize("keep", [0, 4, 0.5, 0.999])
def test_damaged_weights(saved, keep):
    folder, _ = saved()
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else keep])
    message = refusal(folder)
    assert str(folder) in message and "model.safetensors" in message


def test_weights_that_are_no_safetensors(saved):
    folder, _ = saved()
    (folder / "model.safetensors").write_bytes(b"\xff" * 4096)
    assert str(folder) in refusal(folder)


def test_an_encoder_without_its_head(tmp_path):
    transformers.BertModel(BERT).save_pretrained(tmp_path / "encoder")
    message = refusal(tmp_path / "encoder")
    assert str(tmp_path / "encoder") in message
    assert "bert without its head, 6 tensors such as cls.predictions" in message
    assert "save it as BertForMaskedLM" in message and "-teacher-mlm" in message
    # What the message says can be done.
    transformers.BertForMaskedLM.from_pretrained(tmp_path / "encoder").save_pretrained(tmp_path / "whole")
    load_model(str(tmp_path / "whole"), torch.float32)


def test_a_distilbert_without_its_head(tmp_path):
    transformers.DistilBertModel(DISTILBERT).save_pretrained(tmp_path / "encoder")
    assert "vocab_" in refusal(tmp_path / "encoder")


def test_weights_of_another_shape(saved):
    folder, _ = saved()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 24}))
    message = refusal(folder)
    assert f"model {folder} has 6 tensors of other shapes than its config.json says, such as bert.enc" in message


def test_fewer_layers_than_the_config_says(saved):
    folder, _ = saved()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    message = refusal(folder)
    assert f"model {folder} has 16 tensors less than its config.json says, such as bert.encoder.layer.2" in message


def test_a_value_of_the_wrong_type_in_a_config(saved):
    folder, _ = saved()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": "16"}))
    message = refusal(folder)
    assert f"model folder {folder}: config.json is missing or damaged" in message and "hidden_size" in message


def test_a_model_of_no_known_family(tmp_path):
    config = transformers.ElectraConfig(
        vocab_size=31, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20
    )
    transformers.ElectraForMaskedLM(config).save_pretrained(tmp_path / "m")
    message = refusal(tmp_path / "m", ConfigError)
    assert "electra" in message and "bert, distilbert" in message
