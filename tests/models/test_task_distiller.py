"""Terms of a task's loss against plain formulas in loops, and what they are where there is nothing to learn."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tasks import KINDS, LABELS, features, stock, task_batch, tiny_task
from torch import nn

from distil.errors import ConfigError
from distil.models.families import FAMILIES
from distil.models.task_distiller import TERMS, TaskDistiller, cosine_loss, soft_loss, task_loss
from distil.models.task_heads import task_family
from distil.tasks.batch import TaskBatch
from distil.tasks.tables import TaskLoss
from distil.tasks.task import CLASSIFICATION, REGRESSION, SPANS

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS = [7, 1, 12, 4]
DIRECT = TaskLoss(temperature=2.0, alpha_task=1.0, alpha_ce=5.0, alpha_cos=2.0)
every_kind = pytest.mark.parametrize("kind", KINDS)


def distiller(kind: str, loss: TaskLoss = DIRECT, teacher: nn.Module | None = None, **changes) -> TaskDistiller:
    """A DistilBERT under a BERT."""
    student = tiny_task("distilbert", kind, seed=1, **changes)
    if teacher is None and loss.needs_teacher:
        teacher = tiny_task("bert", kind, seed=2).requires_grad_(False)
    families = [task_family(FAMILIES[name], kind) for name in ("distilbert", "bert")]
    return TaskDistiller(student, families[0], kind, teacher, families[1] if teacher else None, loss)


def log_softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    row = [x / temperature for x in row]
    top = max(row)
    total = math.log(sum(math.exp(x - top) for x in row)) + top
    return [x - total for x in row]


def divergence(student: list[float], teacher: list[float], temperature: float) -> float:
    p, q = log_softmax(teacher, temperature), log_softmax(student, temperature)
    return temperature**2 * sum(math.exp(a) * (a - b) for a, b in zip(p, q, strict=True))


def by_hand(kind: str, batch: TaskBatch, student: torch.Tensor, teacher: torch.Tensor, temperature: float):
    """Sums of the task's own loss and of the comparison with the teacher, number by number in float64."""
    task = ce = 0.0
    bounds = batch.cu_seqlens_B1.tolist()
    for i, label in enumerate(batch.labels_B.tolist()):
        if kind == REGRESSION:
            task += (float(student[i, 0]) - label) ** 2
            ce += (float(student[i, 0]) - float(teacher[i, 0])) ** 2
        elif kind == CLASSIFICATION:
            task -= log_softmax(student[i].tolist())[label]
            ce += divergence(student[i].tolist(), teacher[i].tolist(), temperature)
        else:
            for side in range(2):
                own, other = (x[bounds[i] : bounds[i + 1], side].tolist() for x in (student, teacher))
                task -= log_softmax(own)[label[side]] / 2
                ce += divergence(own, other, temperature) / 2
    return task, ce


@every_kind
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_terms_are_those_of_plain_formulas_on_stock_models(kind, temperature):
    batch, loss = task_batch(LENGTHS, kind), replace(DIRECT, temperature=temperature)
    found = distiller(kind, loss)(batch, 10)
    with torch.no_grad():
        student, own_BLH = stock(tiny_task("distilbert", kind, seed=1), kind, batch)
        teacher, other_BLH = stock(tiny_task("bert", kind, seed=2), kind, batch)
    task, ce = by_hand(kind, batch, student, teacher, temperature)
    cos = sum(
        1 - float(torch.cosine_similarity(a.double(), b.double(), dim=0))
        for a, b in zip(own_BLH[:, 0], other_BLH[:, 0], strict=True)
    )
    wanted = torch.tensor([task, ce, cos]) / 10
    assert (wanted > 1e-2).all()
    # Logits and states of a few units with 2^-16 of rounding, as for heads, and squared or multiplied by T^2 once.
    torch.testing.assert_close(found.terms, wanted, rtol=2**-13, atol=2**-13)
    torch.testing.assert_close(found.total, wanted @ torch.tensor([1.0, 5.0, 2.0]), rtol=2**-12, atol=2**-12)
    assert not found.terms.requires_grad and found.total.requires_grad and found.terms.dtype == torch.float32


@every_kind
def test_gradients_are_those_of_plain_formulas(kind):
    # In float64, where torch's own derivative of the plain formula has no rounding to speak of.
    draw = torch.Generator().manual_seed(0)
    shape = (2, 3, 5) if kind == SPANS else (3, 1) if kind == REGRESSION else (3, len(LABELS))
    student, teacher = (torch.randn(shape, generator=draw, dtype=torch.double) for _ in range(2))
    student.requires_grad_()
    (found,) = torch.autograd.grad(soft_loss(kind, student, teacher, 3.0), student)
    log_q, p = (student / 3).log_softmax(-1), (teacher / 3).softmax(-1)
    plain = 9 * (p * (p.log() - log_q)).sum() / (2 if kind == SPANS else 1)
    if kind == REGRESSION:
        plain = (student - teacher).square().sum()
    (wanted,) = torch.autograd.grad(plain, student)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    rows = [torch.randn(4, 6, generator=draw, dtype=torch.double) for _ in range(2)]
    rows[0].requires_grad_()
    plain = (1 - torch.cosine_similarity(*rows)).sum()
    torch.testing.assert_close(cosine_loss(*rows), plain)
    torch.testing.assert_close(*(torch.autograd.grad(value, rows[0])[0] for value in (cosine_loss(*rows), plain)))


@every_kind
@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_like_its_teacher_has_nothing_to_learn_from_it(family, kind):
    student, teacher = (tiny_task(family, kind) for _ in range(2))
    of_task = task_family(FAMILIES[family], kind)
    loss = TaskLoss(temperature=3.0, alpha_task=0.0, alpha_ce=5.0, alpha_cos=2.0)
    found = TaskDistiller(student, of_task, kind, teacher, of_task, loss)(task_batch(LENGTHS, kind), 4)
    assert found.total.item() == 0 and not found.terms.any()
    found.total.backward()
    assert all(p.grad is None or not p.grad.any() for p in student.parameters())
    assert any(p.grad is not None for p in student.parameters())


@every_kind
def test_shares_sum_to_the_whole(kind):
    made, module = features(LENGTHS, kind), distiller(kind)
    whole = module(TaskBatch.of(made, range(4)), 4)
    halves = [module(TaskBatch.of(made, numbers), 4) for numbers in ([2, 0], [1, 3])]
    # Sums in another order, of numbers as above.
    torch.testing.assert_close(sum(h.terms for h in halves), whole.terms, rtol=2**-13, atol=2**-13)
    torch.testing.assert_close(sum(h.total for h in halves), whole.total, rtol=2**-12, atol=2**-12)
    assert module(TaskBatch.of(made, range(4)), 8).total == whole.total / 2  # a power of two: exact


@every_kind
def test_terms_without_weight_are_nought(kind):
    batch = task_batch(LENGTHS, kind)
    whole = dict(zip(TERMS, distiller(kind)(batch, 4).terms.tolist(), strict=True))
    for name in ("task", "ce"):
        loss = TaskLoss(**dict.fromkeys(("alpha_task", "alpha_ce"), 0.0) | {f"alpha_{name}": 3.0})
        found = distiller(kind, loss)(batch, 4)
        assert dict(zip(TERMS, found.terms.tolist(), strict=True)) == dict.fromkeys(TERMS, 0.0) | {name: whole[name]}
        assert found.total.item() == pytest.approx(3 * whole[name], rel=1e-6)  # a rounding or two


@pytest.mark.parametrize("big", [1e4, 1e30])
def test_extreme_logits_give_finite_terms_and_gradients(big):
    for kind, shape in ((CLASSIFICATION, (2, 3)), (SPANS, (2, 2, 3))):
        student = torch.full(shape, -big).requires_grad_()
        teacher = torch.full(shape, -big)
        with torch.no_grad():
            student[..., 0] = teacher[..., 1] = big
        labels = torch.tensor([0, 0]) if kind == CLASSIFICATION else torch.zeros(2, 2, dtype=torch.long)
        soft = soft_loss(kind, student, teacher, 2.0)
        total = soft + task_loss(kind, student, labels)
        assert total.isfinite() and soft > big and task_loss(kind, student, labels) == 0
        total.backward()
        assert student.grad.isfinite().all() and student.grad.any()


def test_places_without_a_token_have_no_part():
    # -inf on both sides, as sequences of different lengths have it: the terms are those of what is there.
    draw = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 1, 5, generator=draw) for _ in range(2))
    places = torch.tensor([[1, 2]])
    longer = [torch.cat((x, torch.full((2, 1, 3), -torch.inf)), -1).requires_grad_() for x in (student, teacher)]
    for value, wanted in (
        (soft_loss(SPANS, *longer, 2.0), soft_loss(SPANS, student, teacher, 2.0)),
        (task_loss(SPANS, longer[0], places), task_loss(SPANS, student, places)),
    ):
        torch.testing.assert_close(value, wanted)
        (gradient,) = torch.autograd.grad(value, longer[0])
        assert gradient.isfinite().all() and gradient[..., :5].any() and not gradient[..., 5:].any()


@every_kind
def test_without_a_count_it_gives_logits(kind):
    batch = task_batch(LENGTHS, kind)
    module = distiller(kind, TaskLoss()).bfloat16()
    with torch.no_grad():
        found = module(batch, None)
        exact, _ = stock(tiny_task("distilbert", kind, seed=1), kind, batch)
    assert found.dtype == torch.float32 and found.shape == exact.shape
    assert (found - exact).abs().max() <= 0.05 * max(1, exact.abs().max())  # bf16, as for heads


@every_kind
def test_the_teacher_is_outside_and_untouched(kind):
    teacher = tiny_task("bert", kind, seed=2).train()
    module = distiller(kind, teacher=teacher).train()
    assert not teacher.training and module.student.training
    assert {id(p) for p in module.parameters()} == {id(p) for p in module.student.parameters()}
    module.double()  # what an engine does to the module does not reach it
    assert next(teacher.parameters()).dtype == torch.float32
    module.float()(task_batch(LENGTHS, kind), 4).total.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in module.parameters())  # which engines that reduce gradients rely on


def test_dropout_acts_on_the_student():
    module, batch = distiller(CLASSIFICATION, dropout=0.5).train(), task_batch(LENGTHS)
    torch.manual_seed(0)
    assert module(batch, 4).total != module(batch, 4).total
    module.eval()
    assert module(batch, 4).total == module(batch, 4).total


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ConfigError, match=r"there is none; give --teacher"):
        TaskDistiller(tiny_task("bert", SPANS), task_family(FAMILIES["bert"], SPANS), SPANS, None, None, DIRECT)
    narrow = tiny_task("bert", CLASSIFICATION, hidden_size=16)
    with pytest.raises(ConfigError, match=r"alpha_cos .* have 32 dimensions, the teacher's 16; give --alpha_cos 0"):
        distiller(CLASSIFICATION, teacher=narrow)
    distiller(CLASSIFICATION, replace(DIRECT, alpha_cos=0.0), teacher=narrow)(task_batch(LENGTHS), 4)
    with pytest.raises(ConfigError, match="the student has 3 and the teacher 5"):
        distiller(CLASSIFICATION, teacher=tiny_task("bert", CLASSIFICATION, num_labels=5))
    distiller(CLASSIFICATION, replace(DIRECT, alpha_ce=0.0), teacher=tiny_task("bert", CLASSIFICATION, num_labels=5))
