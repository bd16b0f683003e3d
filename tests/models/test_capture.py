"""What is captured of a model's attention is what that layer was given."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from distil.data.batch import PackedBatch
from distil.models.packed import Capture, packed_inputs, use_packed_attention

pytestmark = pytest.mark.usefixtures("one_thread")

VOCAB, LENGTHS = 31, [5, 1, 4]


def tiny_bert() -> transformers.BertModel:
    torch.manual_seed(0)
    shape = dict(hidden_size=12, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16, vocab_size=VOCAB)
    model = transformers.BertModel(transformers.BertConfig(**shape, max_position_embeddings=8)).eval()
    use_packed_attention(model)
    return model


def tiny_batch() -> PackedBatch:
    ids = np.random.default_rng(0).integers(0, VOCAB, sum(LENGTHS))
    return PackedBatch.pack(ids, np.full(len(ids), -100), np.array(LENGTHS, dtype=np.int32))


def test_what_is_captured_is_what_a_layers_attention_saw():
    model, inputs = tiny_bert(), packed_inputs(tiny_batch())
    made: dict[str, torch.Tensor] = {}
    for name, module in model.named_modules():
        if name.endswith(("self.query", "self.key", "self.value")):
            module.register_forward_hook(lambda _, __, out, name=name: made.update({name: out}))
    plain = model(**inputs).last_hidden_state
    for layer in range(3):
        capture = Capture(layer)
        assert torch.equal(model(**inputs, capture=capture).last_hidden_state, plain)
        assert capture.calls == 3
        for part, seen in zip(("query", "key", "value"), capture.seen, strict=True):
            assert seen.shape == (1, 2, sum(LENGTHS), 6)
            projected = made[f"encoder.layer.{layer}.attention.self.{part}"]
            assert torch.equal(seen.transpose(1, 2).flatten(2), projected)


def test_gradients_of_what_is_captured_reach_the_layer_and_those_below_it():
    model, capture = tiny_bert(), Capture(1)
    model(**packed_inputs(tiny_batch()), capture=capture)
    sum(x.square().sum() for x in capture.seen).backward()
    reached = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert "encoder.layer.1.attention.self.value.weight" in reached and "encoder.layer.0.output.dense.weight" in reached
    assert not any(name.startswith("encoder.layer.2") or "layer.1.output" in name for name in reached)


def test_a_layer_that_is_not_there_is_told():
    model, capture = tiny_bert(), Capture(3)
    model(**packed_inputs(tiny_batch()), capture=capture)
    with pytest.raises(ValueError, match="called 3 times, so there is no layer 3"):
        _ = capture.seen
