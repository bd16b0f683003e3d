"""Student and loss as one module: the teacher stays outside, the loss is that of the stock models on padded batches."""

from __future__ import annotations

from dataclasses import asdict, replace
from inspect import signature

import numpy as np
import pytest
import torch
import transformers
from torch import nn

from distil.data.batch import PackedBatch
from distil.kernels import triple_loss
from distil.models.distiller import EVALUATION, TERMS, Counts, Distiller
from distil.models.families import BERT, DISTILBERT
from distil.tables import Loss

pytestmark = pytest.mark.usefixtures("one_thread")

VOCAB, LENGTHS = 53, [7, 1, 12, 4]
PAPER = Loss(temperature=2.0, alpha_ce=5.0, alpha_mlm=2.0, alpha_cos=1.0)
LOSSES = {
    "paper": PAPER,
    "restricted": replace(PAPER, restrict_ce_to_mask=True),
    "with logits' distance": replace(PAPER, temperature=3.0, alpha_mse=0.25),
}
COUNTS = Counts(attended=100, predicted=30)  # of a global batch, of which this is a part


def randomised(model: nn.Module, seed: int) -> nn.Module:
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            near_one = "LayerNorm.weight" in name or "layer_norm.weight" in name
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.2 + near_one)
    return model.eval()


def a_student(**changes) -> nn.Module:
    config = transformers.DistilBertConfig(
        vocab_size=VOCAB, dim=16, n_layers=2, n_heads=2, hidden_dim=20, max_position_embeddings=12,
        **{"dropout": 0.0, "attention_dropout": 0.0, **changes},
    )  # fmt: skip
    return randomised(transformers.DistilBertForMaskedLM(config), 1)


def a_teacher() -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=VOCAB, hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=24,
        max_position_embeddings=12,
    )  # fmt: skip
    return randomised(transformers.BertForMaskedLM(config), 2).requires_grad_(False)


def distiller(loss: Loss = PAPER, teacher: nn.Module | None = None, student: nn.Module | None = None) -> Distiller:
    return Distiller(student or a_student(), DISTILBERT, teacher or a_teacher(), BERT, loss)


def a_batch(masked: int = 6) -> PackedBatch:
    draw = np.random.default_rng(0)
    n = sum(LENGTHS)
    ids, labels = draw.integers(5, VOCAB, n), np.full(n, -100)
    places = draw.permutation(n)[:masked]
    labels[places] = draw.integers(5, VOCAB, masked)
    return PackedBatch.pack(ids, labels, np.array(LENGTHS, dtype=np.int32))


def padded(batch: PackedBatch, values: torch.Tensor, fill: int) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence(values.split(LENGTHS), batch_first=True, padding_value=fill)


def stock(model: nn.Module, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Last hidden states and logits at the real tokens, by the stock model on the padded batch."""
    mask = padded(batch, torch.ones_like(batch.input_ids_N), 0)
    ids = padded(batch, batch.input_ids_N, 0)
    output = model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    return output.hidden_states[-1][mask.bool()], output.logits[mask.bool()]


def on_padded(loss: Loss, batch: PackedBatch, student: nn.Module):
    """The same loss from the stock models on a padded batch."""
    student_hidden, _ = stock(student, batch)
    with torch.no_grad():
        teacher_hidden, _ = stock(a_teacher(), batch)
    options = {name: value for name, value in asdict(loss).items() if name in signature(triple_loss).parameters}
    return triple_loss(
        student_hidden, DISTILBERT.head(student), teacher_hidden, BERT.head(a_teacher()), batch.labels_N,
        attended_count=100, masked_count=30, **options,
    )  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
def test_the_loss_is_that_of_padded_batches(loss):
    batch, student, plain = a_batch(), a_student(), a_student()
    found, wanted = distiller(loss, student=student)(batch, COUNTS), on_padded(loss, batch, plain)
    # fp32 sums in another order through three layers: 2^8 roundings of 2^-24, as for the logits themselves; the
    # floor is for KL, a difference of numbers of size T^2 log V, about 36 at most, times its weight of 5.
    torch.testing.assert_close(found.terms[: len(wanted.terms)], wanted.terms, rtol=2**-16, atol=36 * 2**-20)
    assert not found.terms[len(wanted.terms) :].any()  # hidden states and relations have no weight here
    torch.testing.assert_close(found.total, wanted.total, rtol=2**-16, atol=5 * 36 * 2**-20)
    assert found.terms[TERMS.index("teacher_mlm")] > 0
    found.total.backward()
    wanted.total.backward()
    biggest = max(float(p.grad.abs().max()) for p in plain.parameters())
    for (name, one), other in zip(student.named_parameters(), plain.parameters(), strict=True):
        scale = max(float(other.grad.abs().max()), 2**-6 * biggest)  # key biases have no gradient but rounding
        assert (one.grad - other.grad).abs().max() <= 2**-13 * scale, name  # twice as deep a chain, with cancellation


def test_terms_that_are_off_are_nought():
    found = distiller(Loss(temperature=1.0, alpha_ce=0.0, alpha_mlm=1.0, alpha_cos=0.0))(a_batch(), COUNTS)
    terms = dict(zip(TERMS, found.terms.tolist(), strict=True))
    assert terms.pop("mlm") > 0 and not any(terms.values())


def test_shares_depend_on_the_counts():
    module, batch = distiller(), a_batch()
    one, half = module(batch, COUNTS).total, module(batch, Counts(200, 60)).total
    assert half == one / 2  # powers of two: exact


def test_the_teacher_is_outside_the_module():
    student, teacher = a_student(), a_teacher()
    module = distiller(student=student, teacher=teacher)
    assert {id(p) for p in module.parameters()} == {id(p) for p in student.parameters()}
    assert set(module.state_dict()) == {f"student.{name}" for name in student.state_dict()}
    assert not {id(m) for m in module.modules()} & {id(m) for m in teacher.modules()}
    module.to(torch.float64)  # what an engine does to the module does not reach it
    assert next(teacher.parameters()).dtype == torch.float32


def test_training_mode_does_not_reach_the_teacher():
    teacher = a_teacher()
    distiller(teacher=teacher).train()
    assert not teacher.training


def test_no_gradient_reaches_the_teacher():
    teacher = a_teacher().requires_grad_(True)
    module = distiller(LOSSES["with logits' distance"], teacher=teacher)
    module(a_batch(), COUNTS).total.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in module.parameters())


def test_dropout_acts_on_the_student():
    module, batch = distiller(student=a_student(dropout=0.5, attention_dropout=0.5)).train(), a_batch()
    torch.manual_seed(0)
    assert module(batch, COUNTS).total != module(batch, COUNTS).total
    module.eval()
    assert module(batch, COUNTS).total == module(batch, COUNTS).total


# --- evaluation ----------------------------------------------------------------------------------------------------


def by_hand(batch: PackedBatch, student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> dict[str, float]:
    sums = dict.fromkeys(EVALUATION, 0.0)
    for n, label in enumerate(batch.labels_N.tolist()):
        if label == -100:
            continue
        s, t = student_logits[n].double(), teacher_logits[n].double()
        sums["predicted"] += 1
        sums["student_right"] += int(s.argmax()) == label
        sums["teacher_right"] += int(t.argmax()) == label
        sums["agree"] += int(s.argmax()) == int(t.argmax())
        sums["student_nll"] += float(torch.log(torch.exp(s).sum()) - s[label])
        sums["teacher_nll"] += float(torch.log(torch.exp(t).sum()) - t[label])
    return sums


def likely(batch: PackedBatch, *models: nn.Module) -> PackedBatch:
    """The batch with labels that the models guess in turn, so that some are right: at random hardly one would be."""
    labels = batch.labels_N.clone()
    with torch.no_grad():
        guesses = [stock(model, batch)[1].argmax(-1) for model in models]
    for i, place in enumerate((labels >= 0).nonzero().flatten().tolist()):
        if i % 3 < len(guesses):
            labels[place] = guesses[i % 3][place]
    return replace(batch, labels_N=labels)


def evaluated(module: Distiller, batch: PackedBatch) -> dict[str, float]:
    sums = module(batch, None)
    assert sums.dtype == torch.double and not sums.requires_grad
    return dict(zip(EVALUATION, sums.tolist(), strict=True))


def test_without_counts_it_evaluates():
    batch = likely(a_batch(masked=12), a_student(), a_teacher())
    with torch.no_grad():
        wanted = by_hand(batch, stock(a_student(), batch)[1], stock(a_teacher(), batch)[1])
    # fp32 logits through three layers: 1.5e-5 of logits of a few units, in each of 12 positions.
    assert evaluated(distiller(), batch) == pytest.approx(wanted, abs=1e-3)
    assert wanted["predicted"] == 12 and 0 < wanted["teacher_right"] < 12 and 0 < wanted["student_right"] < 12


def test_a_teacher_agrees_with_itself():
    found = evaluated(Distiller(a_teacher(), BERT, a_teacher(), BERT, PAPER), a_batch(masked=12))
    assert found["agree"] == found["predicted"] == 12
    assert found["student_nll"] == found["teacher_nll"]


def test_without_a_teacher_the_student_stands_for_it():
    loss = Loss(temperature=1.0, alpha_ce=0.0, alpha_mlm=1.0, alpha_cos=0.0)
    batch = likely(a_batch(), a_student())
    found = evaluated(Distiller(a_student(), DISTILBERT, None, None, loss), batch)
    beside = evaluated(distiller(), batch)
    assert [found[n] for n in ("student_right", "student_nll")] == [beside[n] for n in ("student_right", "student_nll")]
    assert found["teacher_nll"] == found["student_nll"] and found["agree"] == found["predicted"] == 6


def test_without_a_teacher_the_loss_is_the_cross_entropy():
    loss = Loss(temperature=1.0, alpha_ce=0.0, alpha_mlm=2.0, alpha_cos=0.0)
    batch = a_batch()
    found = Distiller(a_student(), DISTILBERT, None, None, loss)(batch, COUNTS)
    with torch.no_grad():
        logits = stock(a_student(), batch)[1]
    nll = by_hand(batch, logits, logits)["student_nll"]
    assert found.total.item() == pytest.approx(2 * nll / 30, rel=2**-16)  # as for the losses above


def test_nothing_masked_sums_to_nought():
    assert set(evaluated(distiller(), a_batch(masked=0)).values()) == {0.0}
