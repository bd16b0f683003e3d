"""Models as they were saved: of which kind, how many parameters, how many bytes; what is none of ours is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from distil.errors import ConfigError, DataError
from distil.evaluation.kept import ALIKE
from distil.evaluation.loaded import Loaded
from distil.tasks.catalogue import find


@pytest.mark.parametrize(
    ("family", "head", "changes", "kind"),
    [
        ("bert", "lm", {}, "mlm"), ("modernbert", "lm", {}, "mlm"), ("gpt2", "lm", {}, "clm"),
        ("distilbert", "classes", {"num_labels": 3}, "classification"), ("gpt2", "classes", {}, "classification"),
        ("roberta", "classes", {"num_labels": 1}, "regression"), ("albert", "spans", {}, "spans"),
    ],
)  # fmt: skip
def test_a_model_is_loaded_as_it_was_saved(folder_of, family, head, changes, kind):
    folder = folder_of(family, head, **changes)
    loaded = Loaded.of("model", str(folder))
    assert loaded.kind == kind in ALIKE
    assert json.loads((folder / "config.json").read_text())["architectures"] == [type(loaded.model).__name__]
    assert not loaded.model.training and loaded.model.config._attn_implementation == "sdpa"
    with safe_open(folder / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    assert all(torch.equal(tensor, loaded.model.state_dict()[name]) for name, tensor in tensors.items())
    assert loaded.file_bytes == (folder / "model.safetensors").stat().st_size
    # transformers stores tied tensors once, and no buffer of these families.
    assert loaded.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert loaded.longest == 40 and loaded.pad_id == {"gpt2": 0}.get(family, loaded.model.config.pad_token_id)


def test_all_files_of_a_large_model_count(folder_of, tmp_path):
    transformers.AutoModelForMaskedLM.from_pretrained(folder_of("bert")).save_pretrained(
        tmp_path, max_shard_size="20KB"
    )
    files = list(tmp_path.glob("*.safetensors"))
    assert len(files) > 1
    assert Loaded.of("model", str(tmp_path)).file_bytes == sum(path.stat().st_size for path in files)


def test_a_model_that_lacks_a_tensor_is_refused(folder_of, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(folder_of("distilbert", "classes"), folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(DataError, match="has 1 tensors less .* such as classifier.weight"):
        Loaded.of("model", str(folder))
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(DataError, match="missing or damaged"):
        Loaded.of("model", str(folder))


@pytest.mark.parametrize("architectures", [None, ["BertModel"], ["BertForTokenClassification"], ["NobodyForMaskedLM"]])
def test_what_is_no_kind_of_ours_is_refused(folder_of, tmp_path, architectures):
    config = json.loads((folder_of("bert") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": architectures}))
    with pytest.raises(ConfigError) as caught:
        Loaded.of("model", str(tmp_path))
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_that_is_fitted_to_a_task(folder_of):
    folder = str(folder_of("bert", "classes"))
    loaded = Loaded.of("model", folder, find("sst2"))
    assert loaded.kind == "classification" and loaded.model.config._attn_implementation == "sdpa"
    assert not loaded.model.training
    with pytest.raises(DataError, match="mnli"):
        Loaded.of("model", folder, find("mnli"))  # of three labels


@pytest.mark.parametrize(
    ("family", "types"), [("bert", True), ("roberta", False), ("distilbert", False), ("gpt2", False)]
)
def test_who_knows_the_texts_of_a_pair_apart(folder_of, family, types):
    assert Loaded.of("model", str(folder_of(family))).token_types == types
