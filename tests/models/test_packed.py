"""Packed batches against the stock models on padded ones: the same numbers, and sequences that do not meet."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from tiny import ATTENTION_DROPOUT, VOCAB, config, tiny
from torch import nn

from distil.data.batch import PackedBatch
from distil.kernels import build, cpu
from distil.kernels.attention import in_use
from distil.models.families import FAMILIES
from distil.models.packed import packed_inputs, use_packed_attention

pytestmark = pytest.mark.usefixtures("one_thread", "way")

LENGTHS = {
    "ragged": [5, 1, 17, 9], "equal": [8, 8, 8], "single": [13], "one token": [1], "ones": [1, 1, 1],
    "a one last": [4, 1], "all positions": [40, 3],
}  # fmt: skip
every_length = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
every_family = pytest.mark.parametrize("family", FAMILIES)
both_ways = pytest.mark.parametrize("family", [name for name, family in FAMILIES.items() if not family.causal])


@pytest.fixture(params=["padded", "kernel"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Attention as outside of HostFunctions, and by the CPU's kernel."""
    if request.param == "kernel" and build.compiler() is None:
        pytest.skip("no C++ compiler")
    before = in_use.set(cpu.kernels() if request.param == "kernel" else None)
    yield request.param
    in_use.reset(before)


def batch_of(lengths: list[int], seed: int = 0) -> PackedBatch:
    ids = np.random.default_rng(seed).integers(5, VOCAB, sum(lengths))
    return PackedBatch.pack(ids, np.full(len(ids), -100), np.array(lengths, dtype=np.int32))


def packed_logits(model: transformers.PreTrainedModel, batch: PackedBatch) -> torch.Tensor:
    """Logits (N, V) of a packed batch, by the family's parts."""
    family = FAMILIES[model.config.model_type]
    use_packed_attention(model)
    head = family.head(model)
    return head.logits(family.hidden(model, **packed_inputs(batch)))


def padded_logits(model: transformers.PreTrainedModel, batch: PackedBatch) -> torch.Tensor:
    """Logits (N, V) at the real tokens of the stock model on a padded batch, attention spelt out in its own code."""
    model.set_attn_implementation("eager")
    bounds = batch.cu_seqlens_B1.tolist()
    rows = [batch.input_ids_N[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]
    pad = model.config.pad_token_id or 0
    ids = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    logits = model(input_ids=ids, attention_mask=mask).logits
    return logits[mask.bool()]


def gradients(model: nn.Module, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a fixed random combination of the logits."""
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad((logits * weights).sum(), parameters, materialize_grads=True)
    return dict(zip(names, found, strict=True))


@every_length
@every_family
def test_packed_is_padded(family, lengths):
    stock, model, batch = tiny(family), tiny(family), batch_of(lengths)
    wanted, found = padded_logits(stock, batch), packed_logits(model, batch)
    assert found.shape == wanted.shape == (sum(lengths), VOCAB)
    # The same function in fp32, its sums in another order: roundings of 2^-24 through three layers, each of which
    # multiplies by weights of gain about 1 and normalises. 2^8 of them, 1.5e-5 of the largest logit.
    assert (found - wanted).abs().max() <= 2**-16 * wanted.abs().max()
    one, other = gradients(model, found), gradients(stock, wanted)
    biggest = max(float(grad.abs().max()) for grad in other.values())
    for name, grad in other.items():
        # Twice as deep a chain, and sums over all tokens with cancellation: 2^10 roundings of a tensor's largest
        # entry; a gradient that is nought by its nature (a key's bias shifts all scores alike) is so against others.
        scale = max(float(grad.abs().max()), 2**-6 * biggest)
        assert (one[name] - grad).abs().max() <= 2**-14 * scale, name


@every_family
def test_sequences_do_not_see_each_other(family):
    model, lengths = tiny(family), [6, 11, 3]
    batch = batch_of(lengths)
    changed_ids = batch.input_ids_N.clone()
    changed_ids[6:17] = (changed_ids[6:17] + 31) % VOCAB
    changed = replace(batch, input_ids_N=changed_ids)
    with torch.no_grad():
        before, after = packed_logits(model, batch), packed_logits(model, changed)
    others = torch.tensor([True] * 6 + [False] * 11 + [True] * 3)
    assert torch.equal(before[others], after[others])  # bitwise: the same operations on the same numbers
    assert ((before[~others] - after[~others]).abs().amax(1) > 1e-3).all()


@both_ways
def test_within_a_sequence_all_tokens_see_all(family):
    model, batch = tiny(family), batch_of([6, 4])
    changed_ids = batch.input_ids_N.clone()
    changed_ids[5] = (changed_ids[5] + 31) % VOCAB
    changed = replace(batch, input_ids_N=changed_ids)
    with torch.no_grad():
        moved = (packed_logits(model, batch) - packed_logits(model, changed)).abs().amax(1)
    assert (moved[:6] > 1e-4).all() and (moved[6:] == 0).all()


def test_a_causal_model_sees_the_past_alone():
    model, batch = tiny("gpt2"), batch_of([6, 4])
    changed_ids = batch.input_ids_N.clone()
    changed_ids[3] = (changed_ids[3] + 31) % VOCAB
    with torch.no_grad():
        before, after = packed_logits(model, batch), packed_logits(model, replace(batch, input_ids_N=changed_ids))
    moved = (before - after).abs().amax(1)
    assert (moved[3:6] > 1e-4).all() and (moved[:3] == 0).all() and (moved[6:] == 0).all()


def test_a_local_layer_sees_its_window_alone():
    # One layer that looks 3 tokens to each side: a change reaches these and no other.
    model, batch = tiny("modernbert", num_hidden_layers=1, layer_types=["sliding_attention"]), batch_of([20, 9])
    changed_ids = batch.input_ids_N.clone()
    changed_ids[10] = (changed_ids[10] + 31) % VOCAB
    with torch.no_grad():
        before, after = packed_logits(model, batch), packed_logits(model, replace(batch, input_ids_N=changed_ids))
    moved = (before - after).abs().amax(1) > 0
    assert moved.nonzero().flatten().tolist() == list(range(7, 14))


def test_a_window_as_wide_as_the_sequence_is_none():
    batch = batch_of([7, 4])
    padding = packed_inputs(batch)["padding"]
    assert torch.equal(padding.mask(6), padding.mask(None)) and not torch.equal(padding.mask(5), padding.mask(None))


@every_family
def test_states_end_with_what_the_head_gets(family):
    model, batch = tiny(family), batch_of([6, 4])
    use_packed_attention(model)
    with torch.no_grad():
        states = FAMILIES[family].states(model, **packed_inputs(batch))
        assert torch.equal(states[-1], FAMILIES[family].hidden(model, **packed_inputs(batch)))
        model.set_attn_implementation("eager")
        alone = model(batch.input_ids_N[None, :6], output_hidden_states=True).hidden_states
    assert len(states) == len(alone) - 1 == FAMILIES[family].number(model.config, "layers")
    for found, wanted in zip(states, alone[1:], strict=True):
        torch.testing.assert_close(found[:6], wanted[0], rtol=2**-14, atol=2**-14)  # as for logits, states of size 1


@pytest.mark.parametrize("family", ["roberta", "xlm-roberta"])
def test_positions_are_counted_from_the_pad_id(family):
    shape = config(family)
    assert FAMILIES[family].first_position(shape) == shape.pad_token_id + 1
    assert FAMILIES[family].longest(shape) == 40


@every_family
def test_positions_begin_anew_in_each_sequence(family):
    # The same sequence twice: both copies have the same logits only if they have the same positions.
    ids = np.random.default_rng(0).integers(5, VOCAB, 7)
    batch = PackedBatch.pack(np.r_[ids, ids], np.full(14, -100), np.array([7, 7], dtype=np.int32))
    with torch.no_grad():
        logits = packed_logits(tiny(family), batch)
    # Rows of one product may be summed in another order than others of it: a few roundings through three layers.
    assert (logits[:7] - logits[7:]).abs().max() <= 2**-16 * logits.abs().max()


@every_length
@every_family
def test_bf16_runs(family, lengths):
    exact, batch = tiny(family), batch_of(lengths)
    model = copy.deepcopy(exact).bfloat16()
    use_packed_attention(model)
    hidden = FAMILIES[family].hidden(model, **packed_inputs(batch))
    assert hidden.dtype == torch.bfloat16 and hidden.shape == (sum(lengths), 32)
    found, wanted = packed_logits(model, batch), packed_logits(exact, batch)
    # bf16 keeps 8 bits, 2^-9 a rounding; some twenty roundings in a row through three layers, added like noise.
    assert (found - wanted).abs().max() <= 0.05 * wanted.abs().max()
    found.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@every_family
def test_attention_dropout_acts_in_training_alone(family):
    name = ATTENTION_DROPOUT.get(family, "attention_probs_dropout_prob")
    model, batch = tiny(family, **{name: 0.5}), batch_of([9, 4])
    with torch.no_grad():
        evaluated = [packed_logits(model, batch) for _ in range(2)]
        model.train()
        torch.manual_seed(0)
        trained = [packed_logits(model, batch) for _ in range(2)]
    assert torch.equal(*evaluated)
    assert not torch.equal(*trained) and not torch.equal(trained[0], evaluated[0])


def test_inputs_are_shared_between_models():
    # Teacher and student run on one set of inputs: the first must leave it as it was.
    batch = batch_of([5, 2])
    inputs = packed_inputs(batch)
    models = {name: tiny(name) for name in FAMILIES}
    for model in models.values():
        use_packed_attention(model)
    with torch.no_grad():
        for name, model in [*models.items(), *models.items()]:
            found = FAMILIES[name].hidden(model, **inputs)
            assert torch.equal(found, FAMILIES[name].hidden(model, **packed_inputs(batch)))
