"""Heads of tasks on packed batches against the stock models on padded ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers
from tasks import KINDS, a_task, stock, task_batch, tiny_task
from torch import nn

from distil.models.families import FAMILIES
from distil.models.packed import use_packed_attention
from distil.models.task_heads import HEAD, run, same_head, task_family, task_inputs
from distil.tasks.batch import TaskBatch
from distil.tasks.task import CLASSIFICATION, SPANS

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS = {"ragged": [5, 1, 17, 9], "equal": [8, 8, 8], "one token": [1], "all positions": [40, 3]}
every_length = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
every_kind = pytest.mark.parametrize("kind", KINDS)
# ModernBERT's classification has two ways to read a sequence.
VARIANTS = {name: (name, {}) for name in FAMILIES} | {
    "modernbert of means": ("modernbert", {"classifier_pooling": "mean"})
}
every_variant = pytest.mark.parametrize(("family", "changes"), VARIANTS.values(), ids=VARIANTS.keys())


def packed(
    model: transformers.PreTrainedModel, kind: str, batch: TaskBatch
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    use_packed_attention(model)
    return run(model, task_family(FAMILIES[model.config.model_type], kind), kind, task_inputs(batch))


def gradients(model: nn.Module, logits: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a fixed random combination of the logits."""
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(3))
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad((logits * weights).sum(), parameters, materialize_grads=True)
    return dict(zip(names, found, strict=True))


@every_length
@every_kind
@every_variant
def test_packed_is_padded(family, changes, kind, lengths):
    (model, plain), batch = (tiny_task(family, kind, **changes) for _ in range(2)), task_batch(lengths)
    (found, _), (wanted, _) = packed(model, kind, batch), stock(plain, kind, batch)
    rows = sum(lengths) if kind == SPANS else len(lengths)
    assert found.shape == wanted.shape == (rows, a_task(kind).outputs) and found.dtype == torch.float32
    # As in test_packed: the same function in fp32, its sums in another order, 2^8 roundings of the largest logit. The
    # floor is for logits that are all small by chance: sums of numbers of size 1.
    assert (found - wanted).abs().max() <= 2**-16 * max(1, wanted.abs().max())
    one, other = gradients(model, found), gradients(plain, wanted)
    biggest = max(float(grad.abs().max()) for grad in other.values())
    for name, grad in other.items():  # twice as deep a chain, and sums with cancellation
        scale = max(float(grad.abs().max()), 2**-6 * biggest)
        assert (one[name] - grad).abs().max() <= 2**-14 * scale, name


@every_kind
@every_variant
def test_what_is_pooled(family, changes, kind):
    batch, model = task_batch([5, 1, 9]), tiny_task(family, kind, **changes)
    with torch.no_grad():
        _, found = packed(model, kind, batch)
        _, states_BLH = stock(model, kind, batch)
    lengths = batch.cu_seqlens_B1.diff().tolist()
    if changes:
        wanted = torch.stack([states_BLH[i, :n].mean(0) for i, n in enumerate(lengths)])
    else:
        wanted = states_BLH[range(3), [n - 1 if family == "gpt2" else 0 for n in lengths]]
    torch.testing.assert_close(found, wanted, rtol=2**-14, atol=2**-14)  # states of size 1, as above


@pytest.mark.parametrize("pad", [7, None])
def test_a_causal_model_reads_the_last_token_that_is_no_padding(pad):
    # As the stock model does, for which the end of a text may be the pad: a sequence that ends with it is read before.
    lengths = [5, 3, 4]
    batch = task_batch(lengths)
    ids = batch.input_ids_N.clone()
    ids[ids == 7] = 8
    ids[[4, 6, 7]] = 7  # the end of the first, and the last two of the second sequence
    batch = replace(batch, input_ids_N=ids)
    model = tiny_task("gpt2", CLASSIFICATION, pad_token_id=pad)
    with torch.no_grad():
        found, _ = packed(model, CLASSIFICATION, batch)
        model.set_attn_implementation("eager")
        alone = torch.cat([model(row[None]).logits for row in ids.split(lengths)])
    torch.testing.assert_close(found, alone, rtol=2**-14, atol=2**-16)
    assert (found.abs() > 1e-3).any()


@every_kind
@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "albert"])
def test_token_types_are_seen_where_there_are_some(family, kind):
    batch, model = task_batch([6, 4]), tiny_task(family, kind)
    with torch.no_grad():
        with_types, _ = packed(model, kind, batch)
        without, _ = packed(model, kind, replace(batch, token_types_N=torch.zeros_like(batch.token_types_N)))
    assert (with_types - without).abs().max() > 1e-3


@every_kind
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta", "xlm-roberta", "albert", "modernbert"])
def test_dropout_of_the_head_acts_in_training_alone(family, kind):
    names = ("classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout", "qa_dropout")
    model, batch = tiny_task(family, kind, **dict.fromkeys(names, 0.5)), task_batch([9, 4])
    with torch.no_grad():
        evaluated = [packed(model, kind, batch) for _ in range(2)]
        torch.manual_seed(0)
        trained = [packed(model.train(), kind, batch) for _ in range(2)]
    assert torch.equal(evaluated[0][0], evaluated[1][0])
    assert torch.equal(trained[0][1], trained[1][1])  # the encoder has none
    # The question-answering heads of these have none.
    has_none = kind == SPANS and family in ("bert", "roberta", "xlm-roberta", "albert")
    assert torch.equal(trained[0][0], trained[1][0]) == has_none


@every_kind
@pytest.mark.parametrize("family", FAMILIES)
def test_the_parts_are_all_that_the_model_has(family, kind):
    of_task, model = task_family(FAMILIES[family], kind), tiny_task(family, kind)
    layers = range(of_task.number(model.config, "layers"))
    modules = [
        of_task.module(model, name, i) for name in of_task.modules for i in (layers if "layer." in name else [None])
    ]
    found = {id(parameter) for module in modules for parameter in module.parameters()}
    assert found == {id(parameter) for parameter in model.parameters()}
    heads = [of_task.module(model, name) for name in of_task.modules if name.startswith(HEAD)]
    assert heads and {id(parameter) for module in heads for parameter in module.parameters()} < found


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [(CLASSIFICATION, ["roberta xlm-roberta"]), (SPANS, ["bert distilbert roberta xlm-roberta albert gpt2"])],
)
def test_heads_that_are_built_alike(kind, wanted):
    families = {name: task_family(family, kind) for name, family in FAMILIES.items()}
    alike = {" ".join(b for b in families if same_head(families[a], families[b])) for a in families}
    assert {names for names in alike if " " in names} == set(wanted)


def test_bf16_runs():
    for family in FAMILIES:
        for kind in KINDS:
            batch = task_batch([5, 1, 17])
            with torch.no_grad():
                exact, _ = packed(tiny_task(family, kind), kind, batch)
            found, rows_BH = packed(tiny_task(family, kind).bfloat16(), kind, batch)
            assert found.dtype == torch.float32 and rows_BH.dtype == torch.bfloat16
            # As in test_packed: some twenty roundings of 2^-9 in a row, added like noise.
            assert (found - exact).abs().max() <= 0.05 * max(1, exact.abs().max()), (family, kind)
