"""Smaller forms say what the original says, at any batch and length, and are as small as they claim."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from distil.commands import speed
from distil.errors import ConfigError, RunError
from distil.evaluation import compressed
from distil.evaluation.compressed import FORMS, FP32, INT8, ONNX, ONNX_INT8, Form, forms_of, int8, tensor_bytes
from distil.evaluation.loaded import Loaded

CASES = [
    ("bert", "lm"), ("distilbert", "spans"), ("roberta", "classes"), ("gpt2", "lm"),
    *(pytest.param(*case, "lm", marks=pytest.mark.slow) for case in (["albert"], ["modernbert"], ["xlm-roberta"])),
    pytest.param("gpt2", "classes", marks=pytest.mark.slow),
]  # fmt: skip


def inputs(rows: int, length: int, types: bool = False) -> dict[str, torch.Tensor]:
    """A batch whose second row is half padding."""
    draw = torch.Generator().manual_seed(rows * length)
    mask = torch.ones(rows, length, dtype=torch.long)
    mask[1:2, (length + 1) // 2 :] = 0
    made = {"input_ids": torch.randint(5, 60, (rows, length), generator=draw), "attention_mask": mask}
    return made | ({"token_type_ids": torch.randint(2, (rows, length), generator=draw)} if types else {})


def real(logits: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return logits if logits.ndim == 2 else logits[batch["attention_mask"].bool()]


@pytest.mark.parametrize(("family", "head"), CASES)
def test_every_form_says_what_the_original_says(folder_of, family, head):
    loaded = Loaded.of("model", str(folder_of(family, head)))
    types = family == "bert"
    forms = {form.name: form for form in forms_of(loaded, list(FORMS), inputs(1, 9, types), threads=1)}
    assert list(forms) == list(FORMS)
    # One less than all positions; a single token; another batch than was exported.
    for batch in (inputs(1, 1, types), inputs(2, 39, types), inputs(5, 12, types)):
        with torch.no_grad():
            output = loaded.model(**batch)
        expected = output.logits if "logits" in output else torch.stack((output.start_logits, output.end_logits), -1)
        assert torch.equal(forms[FP32].run(batch), expected)
        # The same sums in fp32 in another order: some 1e-5 on logits of 4 or so.
        onnx = forms[ONNX].run(batch)
        assert onnx.shape == expected.shape
        torch.testing.assert_close(real(onnx, batch), real(expected, batch), rtol=1e-3, atol=1e-4)
        # Weights and activations in 256 steps each, some 1 % of their range, through four layers of random weights:
        # less than a quarter of the logits' size is left as an error, where other weights would be wrong by 140 %.
        for name in (INT8, ONNX_INT8):
            small, large = real(forms[name].run(batch), batch), real(expected, batch)
            assert not torch.equal(small, large)
            assert (small - large).norm() < 0.25 * large.norm(), name
    assert forms[FP32].bytes == loaded.file_bytes
    assert forms[ONNX_INT8].bytes < forms[ONNX].bytes


def test_bytes_of_int8_layers():
    """An int8 weight takes a byte a number, and each output a scale and a zero point of 4; the rest stays in fp32."""
    model = nn.Sequential(nn.Embedding(10, 64), nn.Linear(64, 32), nn.LayerNorm(32))
    assert tensor_bytes(model) == 4 * (640 + 64 * 32 + 32 + 64)
    small = int8(model)
    layer = 64 * 32 + 4 * 32 + 8 * 32 + 12  # weight, bias, scales with zero points; torch adds a pair for the layer
    assert tensor_bytes(small) == 4 * 640 + layer + 4 * 64
    assert isinstance(model[1], nn.Linear) and model[1].weight.dtype == torch.float32  # the original stays


def test_tied_tensors_count_once(folder_of):
    loaded = Loaded.of("model", str(folder_of("bert")))
    assert tensor_bytes(loaded.model) == 4 * loaded.parameters


def test_only_what_is_asked_for_is_made(folder_of):
    loaded = Loaded.of("model", str(folder_of("bert")))
    found = forms_of(loaded, [FP32, INT8], inputs(1, 5), threads=1)
    assert [form.name for form in found] == [FP32, INT8] and all(isinstance(form, Form) for form in found)


def test_the_programs_names_are_the_forms():
    assert speed.FORMS == FORMS


def test_without_the_packages_onnx_is_left_out_or_refused(monkeypatch):
    assert compressed.available(None) == (list(FORMS), "")
    assert compressed.available([ONNX]) == ([FP32, ONNX], "")
    monkeypatch.setattr(compressed, "PACKAGES", ("onnx", "no_such_package"))
    names, note = compressed.available(None)
    assert names == [FP32, INT8] and "which need no_such_package: pip install onnx" in note
    assert compressed.available([INT8]) == ([FP32, INT8], "")
    with pytest.raises(ConfigError, match="need no_such_package: pip install"):
        compressed.available([ONNX_INT8])


def test_what_cannot_be_exported_says_how_to_do_without(tmp_path):
    class Odd(nn.Module):
        def forward(self, input_ids, attention_mask):
            return {"logits": torch.zeros(int(input_ids.sum()) % 3 + 1)}

    with pytest.raises(RunError) as caught:
        compressed.onnx_file(Odd(), inputs(1, 5), tmp_path / "m.onnx")
    assert "--forms fp32 int8" in str(caught.value) and "\n" not in str(caught.value)


def test_the_packages_are_pinned():
    pinned = (Path(__file__).parents[2] / "requirements.txt").read_text()
    for name in compressed.PACKAGES:
        assert re.search(rf"^{name}==\d", pinned, re.MULTILINE), name
