"""Each ds_config that ships, on two ranks: 20 steps, everything a run leaves behind, and on to 40."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import transformers
from harness import ROOT, Material, must_pretrain, scalars, tags
from safetensors.torch import load_file

from distil.checkpoint.tensors import Reader
from distil.engine.state import WEIGHT

CONFIGS = sorted(path.name for path in (ROOT / "ds_config").glob("*.json"))


@pytest.mark.faults  # stopped and resumed
@pytest.mark.parametrize("config", CONFIGS)
def test_twenty_steps_and_on_to_forty(material: Material, tmp_path: Path, config: str):
    run = tmp_path / "run"
    arguments = ("--recipe", material.recipe, "--deepspeed", f"ds_config/{config}", "--output_dir", run, "--steps", 60)
    printed = must_pretrain(2, *arguments, "--max_steps", 20)
    for wanted in ("student after", "held-out accuracy", f"tensorboard --logdir {tmp_path}", f"{run}/student"):
        assert wanted in printed
    assert (run / "checkpoints" / "latest").read_text() == "step-00000020\n"
    assert tags(run) == set(readme_tags())
    assert list(scalars(run, "loss/total")) == list(range(1, 21))
    assert list(scalars(run, "heldout/mlm_accuracy")) == [0, 10, 20]
    loads_and_matches(run, material)
    printed = must_pretrain(2, *arguments, "--max_steps", 40)
    assert "resuming from" in printed and list(scalars(run, "loss/total")) == list(range(1, 41))
    first, *_, last = scalars(run, "heldout/perplexity").values()
    assert last < first
    assert not list((run / "checkpoints").glob(".*")) and len(list((run / "checkpoints").glob("step-*"))) == 2


def readme_tags() -> list[str]:
    """The tags that the README promises."""
    table = (
        (ROOT / "README.md").read_text().split("## TensorBoard tags")[1].split("\n## ")[0].split("| further tag |")[0]
    )
    return re.findall(r"^\| `([a-z_/0-9]+)`", table, flags=re.MULTILINE)


def loads_and_matches(run: Path, material: Material) -> None:
    student, info = transformers.AutoModelForMaskedLM.from_pretrained(run / "student", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert student.vocab_projector.weight is student.distilbert.embeddings.word_embeddings.weight
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "student")
    assert tokenizer.get_vocab() == transformers.AutoTokenizer.from_pretrained(material.teacher).get_vocab()
    assert "student after" in (run / "student" / "README.md").read_text()
    assert json.loads((run / "student" / "config.json").read_text())["dtype"] == "float32"
    exported = load_file(run / "student" / "model.safetensors")
    checkpoint = run / "checkpoints" / "step-00000020"
    with Reader(sorted(checkpoint.glob("*.safetensors"))) as reader:
        for name, tensor in exported.items():
            trained = reader.read(WEIGHT, f"student.{name}", 0, tensor.numel())
            assert tensor.equal(trained.view(tensor.shape)), name
    with torch.no_grad():
        copy = transformers.DistilBertForMaskedLM(student.config)
        copy.load_state_dict(exported, strict=False)
        copy.tie_weights()
        ids = torch.arange(5, 30)[None]
        assert student.eval()(ids).logits.equal(copy.eval()(ids).logits)


def test_a_dry_run_prints_the_plan_and_leaves_nothing(material: Material, tmp_path: Path):
    printed = must_pretrain(None, "--recipe", material.recipe, "--output_dir", tmp_path / "run", "--dry_run")
    for wanted in (
        "5 CE + 2 MLM + 1 COS",
        "4 micro-batches = 4 accumulated x 1 rank(s)",
        "128 tokens at most",
        "steps",
    ):
        assert wanted in printed
    assert not (tmp_path / "run").exists()
