"""Terms beyond heads and last hidden states, of every family: wired to the right layers, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny import LAYERS, VOCAB, config, tiny
from torch import nn

from distil.data.batch import PackedBatch
from distil.data.masking import Masker, NextToken
from distil.data.sampler import generator
from distil.errors import ConfigError
from distil.kernels.host import host_functions
from distil.kernels.packing import PackedWeights
from distil.models.comparison import Comparison, evenly
from distil.models.distiller import TERMS, Counts, Distiller
from distil.models.families import FAMILIES, family_of
from distil.models.matching import relation_loss
from distil.models.packed import Capture, packed_inputs
from distil.models.shape import shape_of
from distil.models.student import make_student
from distil.tables import Loss, Model

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS = np.array([9, 1, 14, 4], dtype=np.int32)
NOTHING = dict(temperature=2.0, alpha_ce=0.0, alpha_cos=0.0)
every_family = pytest.mark.parametrize("family", FAMILIES)


def a_batch(family: str) -> PackedBatch:
    ids = np.random.default_rng(0).integers(6, VOCAB, LENGTHS.sum())
    special = {"mask": 5, "pad": 0}
    masker = Masker.from_counts(np.ones(VOCAB), special, fraction=0.3, smoothing=0.0, mask_share=0.8, keep_share=0.1)
    objective = NextToken() if FAMILIES[family].causal else masker
    return PackedBatch.pack(*objective.targets(ids, LENGTHS, generator("masks", 1)), LENGTHS)


def counts(batch: PackedBatch) -> Counts:
    return Counts(len(batch.input_ids_N), len(batch.predicted_rows_M))


def student_of(teacher: nn.Module, **wanted: object) -> nn.Module:
    model = Model(teacher="", student="same", dropout=0.0, **wanted)
    return make_student(teacher, shape_of(teacher.config, model), "teacher", 0).model.eval()


def distiller(loss: Loss, student: nn.Module, teacher: nn.Module | None) -> Distiller:
    return Distiller(student, family_of(student.config), teacher, teacher and family_of(teacher.config), loss)


def terms_of(module: Distiller, batch: PackedBatch, **how: object) -> dict[str, float]:
    return dict(zip(TERMS, module(batch, counts(batch), **how).terms.tolist(), strict=True))


def alone(model: nn.Module, batch: PackedBatch) -> list[list[torch.Tensor]]:
    """Hidden states after each layer, of each sequence by itself, by the stock model."""
    model.set_attn_implementation("eager")
    bounds = np.r_[0, LENGTHS.cumsum()]
    with torch.no_grad():
        parts = [
            model(batch.input_ids_N[None, a:b], output_hidden_states=True).hidden_states[1:]
            for a, b in zip(bounds, bounds[1:], strict=False)
        ]
    return [[sequence[layer][0] for sequence in parts] for layer in range(len(parts[0]))]


@every_family
def test_a_copy_of_the_teacher_has_nothing_to_learn_from_it(family):
    loss = Loss(
        temperature=2.0, alpha_ce=1.0, alpha_cos=1.0, alpha_mse=1.0, alpha_hidden=1.0, alpha_relations=1.0,
        relation_heads=8,
    )  # fmt: skip
    teacher = tiny(family)
    module, batch = distiller(loss, student_of(teacher), teacher), a_batch(family)
    found = terms_of(module, batch)
    # The same operations on the same numbers, but for the cosine's own rounding: 1 - x.x / |x||x|.
    assert found["ce"] == found["mse"] == found["hidden"] == found["relations"] == 0
    assert abs(found["cos"]) < 1e-6 and found["mlm"] == found["teacher_mlm"] > 0


@every_family
def test_hidden_states_of_chosen_layers(family):
    teacher = tiny(family)
    student, batch = student_of(teacher, student_depth=2), a_batch(family)
    loss = Loss(**NOTHING, alpha_hidden=3.0, hidden_layers=("0:1", "1:3"))
    output = distiller(loss, student, teacher)(batch, counts(batch))
    ours, theirs = alone(student, batch), alone(teacher, batch)
    wanted = (
        sum(
            float((s - t).square().mean(-1).sum())
            for own, other in ((0, 1), (1, 3))
            for s, t in zip(ours[own], theirs[other], strict=True)
        )
        / LENGTHS.sum()
    )
    # fp32 through a few layers, as in test_packed: 2^8 roundings of a sum of squares.
    assert output.terms[TERMS.index("hidden")].item() == pytest.approx(wanted, rel=2**-14)
    assert output.total.item() == pytest.approx(3 * wanted, rel=2**-14) and wanted > 0.01


def test_the_last_layer_goes_with_the_last():
    assert evenly(6, 12) == ((0, 1), (1, 3), (2, 5), (3, 7), (4, 9), (5, 11))
    assert evenly(3, 4) == ((0, 0), (1, 2), (2, 3)) and evenly(2, 2) == ((0, 0), (1, 1))


@every_family
@pytest.mark.parametrize("layer", [-1, 1])
def test_relations_are_those_of_the_layers_named(family, layer):
    teacher, batch = tiny(family), a_batch(family)
    student = student_of(teacher, student_depth=2)
    loss = Loss(**NOTHING, alpha_relations=2.0, relation_heads=4, relation_layer=layer)
    output = distiller(loss, student, teacher)(batch, counts(batch))
    inputs, seen = packed_inputs(batch), []
    for model, of in ((student, 1), (teacher, layer % LAYERS)):
        capture = Capture(of)
        with torch.no_grad(), host_functions(PackedWeights(), torch.device("cpu")):  # as the module's own forward has
            FAMILIES[family].hidden(model, **inputs, capture=capture)
        seen.append(capture.seen)
    causal = FAMILIES[family].causal
    wanted = relation_loss(*seen, inputs["padding"], 4, len(batch.input_ids_N), causal=causal)
    found = output.terms[TERMS.index("relations")]
    # An ALBERT's layers are one, so the second of two is the second of four.
    assert torch.equal(found, wanted) and (wanted > 1e-4 or (family, layer) == ("albert", 1))
    assert output.total == 2 * wanted


@every_family
@pytest.mark.parametrize("term", ["hidden", "relations", "cos"])
def test_every_parameter_that_a_forward_uses_has_a_gradient(family, term):
    # Whatever the loss is made of: engines count on it.
    teacher, batch = tiny(family), a_batch(family)
    alphas = {"alpha_ce": 0.0, "alpha_cos": 0.0} | {f"alpha_{term}": 1.0}
    loss = Loss(temperature=2.0, **alphas, relation_heads=4, hidden_layers=("0:1",))
    module = distiller(loss, student_of(teacher, student_depth=2), teacher)
    told = []
    for name, parameter in module.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda p, name=name: told.append((name, p.grad is not None)))
    module(batch, counts(batch)).total.backward()
    assert told and all(has for _, has in told), [name for name, has in told if not has]


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_a_student_of_another_width_meets_its_teacher_by_a_projection(family):
    teacher = tiny(family)
    student = student_of(teacher, student_hidden=16, student_depth=2)
    loss = Loss(temperature=2.0, alpha_ce=0.0, alpha_cos=1.0, alpha_hidden=1.0, alpha_relations=1.0, relation_heads=8)
    module, batch = distiller(loss, student, teacher), a_batch(family)
    assert module.projection.weight.shape == (32, 16)
    assert set(module.state_dict()) - {f"student.{name}" for name in student.state_dict()} == {"projection.weight"}
    output = module(batch, counts(batch))
    output.total.backward()
    assert module.projection.weight.grad.abs().max() > 0
    hidden = torch.cat(alone(student, batch)[-1]) @ module.projection.weight.T.detach()
    wanted = (1 - torch.cosine_similarity(hidden, torch.cat(alone(teacher, batch)[-1]))).mean()
    assert output.terms[TERMS.index("cos")].item() == pytest.approx(wanted.item(), rel=2**-12)


def test_of_one_width_there_is_no_projection():
    teacher = tiny("bert")
    loss = Loss(temperature=1.0, alpha_ce=0.0, alpha_cos=1.0)
    assert distiller(loss, student_of(teacher), teacher).projection is None


@every_family
def test_untaught_the_labels_alone_decide(family):
    teacher = tiny(family)
    student, batch = student_of(teacher, student_depth=2, student_hidden=16), a_batch(family)
    name = "alpha_clm" if FAMILIES[family].causal else "alpha_mlm"
    all_terms = dict(
        temperature=2.0, alpha_ce=5.0, alpha_cos=1.0, alpha_hidden=1.0, alpha_relations=1.0, relation_heads=8
    )
    module = distiller(Loss(**all_terms, **{name: 2.0}), student, teacher)
    plain = distiller(Loss(**NOTHING, **{name: 2.0}), student, None)
    untaught, wanted = module(batch, counts(batch), taught=False), plain(batch, counts(batch))
    assert untaught.total == wanted.total and torch.equal(untaught.terms, wanted.terms)
    untaught.total.backward()
    # Every parameter has a gradient in every step, which engines count on.
    assert all(p.grad is not None for p in module.parameters()) and not module.projection.weight.grad.any()
    assert module(batch, counts(batch)).total != untaught.total


@pytest.mark.parametrize("alpha_ce", [0.0, 5.0])
def test_the_causal_loss_is_that_of_the_stock_model(alpha_ce):
    teacher, batch = tiny("gpt2"), a_batch("gpt2")
    student = student_of(teacher, student_depth=2)
    loss = Loss(temperature=2.0, alpha_ce=alpha_ce, alpha_clm=2.0, alpha_cos=1.0)
    found = terms_of(distiller(loss, student, teacher), batch)
    losses = {}
    for name, model in (("clm", student), ("teacher_mlm", teacher)):
        model.set_attn_implementation("eager")
        bounds = np.r_[0, LENGTHS.cumsum()]
        with torch.no_grad():
            # Its own loss shifts the labels by itself; a sequence of one token has none.
            parts = [
                model(ids, labels=ids).loss * (ids.shape[1] - 1)
                for ids in (batch.input_ids_N[None, a:b] for a, b in zip(bounds, bounds[1:], strict=False))
                if ids.shape[1] > 1
            ]
        losses[name] = float(sum(parts)) / (LENGTHS.sum() - len(LENGTHS))
    assert found["clm"] == found["mlm"] == pytest.approx(losses["clm"], rel=2**-16)
    assert found["teacher_mlm"] == (pytest.approx(losses["teacher_mlm"], rel=2**-16) if alpha_ce else 0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"alpha_hidden": 1.0, "hidden_layers": ("2:0",)}, "hidden_layers: layer 2 is out of range: the student has 2"),
        ({"alpha_hidden": 1.0, "hidden_layers": ("0:4",)}, "hidden_layers: layer 4 is out of range: the teacher has 4"),
        ({"alpha_relations": 1.0, "relation_layer": 4}, "relation_layer: layer 4 is out of range"),
        ({"alpha_relations": 1.0, "relation_heads": 48}, "48 relation heads do not divide the width 32 of the student"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, said):
    with pytest.raises(ConfigError) as caught:
        Comparison.of(Loss(**NOTHING, **changes), config("bert", num_hidden_layers=2), config("bert"))
    assert said in str(caught.value)


def test_what_has_no_weight_is_not_looked_at():
    loss = Loss(temperature=1.0, alpha_ce=1.0, alpha_cos=0.0, hidden_layers=("9:9",), relation_heads=7)
    assert Comparison.of(loss, config("bert", hidden_size=16), config("bert")) == Comparison((), None, False)
