"""Relations within attention against their formula, written as loops over sequences, heads and positions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distil.errors import ConfigError
from distil.models import matching
from distil.models.matching import check_relation_heads, hidden_loss, relation_loss
from distil.models.packed import QKV, Padding

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTHS = {"ragged": [5, 1, 7, 3], "equal": [4, 4], "single": [6], "one token": [1], "ones": [1, 1, 1]}
every_length = pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS.keys())
either_way = pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
HEADS = 3  # of relations; attention has 2 or 4
STUDENT, TEACHER = (4, 3), (2, 12)  # heads and their width: 12 and 24 in all


def padding_of(lengths: list[int]) -> Padding:
    ends = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    return Padding(ends, max(lengths), torch.cat([torch.arange(n) for n in lengths]))


def qkv(shape: tuple[int, int], rows: int, seed: int, dtype=torch.float64, size: float = 1.0) -> QKV:
    draw = torch.Generator().manual_seed(seed)
    heads, width = shape
    drawn = [torch.randn(1, heads, rows, width, generator=draw, dtype=torch.float64) * size for _ in range(3)]
    return tuple(x.to(dtype).requires_grad_() for x in drawn)


def relation(x_1ANd: torch.Tensor, head: int, i: int, first: int, last: int) -> torch.Tensor:
    """How position i is related to positions first to last: softmax of x_i x_j / sqrt(e) by the formula."""
    joined = torch.cat([x_1ANd[0, a] for a in range(x_1ANd.shape[1])], dim=1)
    e = joined.shape[1] // HEADS
    mine = joined[:, head * e : (head + 1) * e]
    scores = torch.stack([(mine[i] * mine[j]).sum() / math.sqrt(e) for j in range(first, last)])
    powers = torch.exp(scores - scores.max().detach())
    return powers / powers.sum()


def by_formula(student: QKV, teacher: QKV, lengths: list[int], causal: bool) -> torch.Tensor:
    total = (student[0] * 0).sum()
    for mine, theirs in zip(student, teacher, strict=True):
        for start, n in zip(np.cumsum([0, *lengths]), lengths, strict=False):
            for i in range(start, start + n):
                for head in range(HEADS):
                    span = (start, i + 1 if causal else start + n)
                    p, q = relation(theirs, head, i, *span), relation(mine, head, i, *span)
                    total = total + (p * torch.log(p / q)).sum() / HEADS
    return total


def loss(student: QKV, teacher: QKV, lengths: list[int], *, causal=False, count: int | None = None) -> torch.Tensor:
    return relation_loss(student, teacher, padding_of(lengths), HEADS, count or sum(lengths), causal=causal)


# --- relations -----------------------------------------------------------------------------------------------------


@every_length
@either_way
def test_relations_are_those_of_the_formula(lengths, causal):
    student, teacher = qkv(STUDENT, sum(lengths), 0), qkv(TEACHER, sum(lengths), 1)
    found = loss(student, teacher, lengths, causal=causal)
    wanted = by_formula(student, teacher, lengths, causal) / sum(lengths)
    # Scores of size 10 at most, each off by some ten roundings of 2^-53, and a mean over positions: 2^8 of them.
    assert abs(float((found - wanted).detach())) <= 2**-45
    assert wanted > 0.1 or max(lengths) == 1
    given, theirs = torch.autograd.grad(found, student), torch.autograd.grad(wanted, student)
    assert all(float((one - other).abs().max()) <= 2**-45 for one, other in zip(given, theirs, strict=True))


@either_way
def test_packed_is_one_sequence_at_a_time(causal):
    lengths = [5, 1, 7, 3]
    student, teacher = qkv(STUDENT, 16, 0), qkv(TEACHER, 16, 1)
    packed = loss(student, teacher, lengths, causal=causal)
    alone, start = torch.zeros((), dtype=torch.float64), 0
    for n in lengths:
        mine, theirs = (tuple(x[:, :, start : start + n] for x in of) for of in (student, teacher))
        alone = alone + loss(mine, theirs, [n], causal=causal, count=16)
        start += n
    assert abs(float((packed - alone).detach())) <= 2**-45  # as above
    pairs = zip(torch.autograd.grad(packed, student), torch.autograd.grad(alone, student), strict=True)
    assert all(float((one - other).abs().max()) <= 2**-45 for one, other in pairs)


@either_way
@pytest.mark.parametrize("lengths", [[5, 1, 7, 3], [4, 4, 4]], ids=str)
def test_some_sequences_at_a_time_are_all_at_once(lengths, causal, monkeypatch):
    student, teacher = qkv(STUDENT, sum(lengths), 0), qkv(TEACHER, sum(lengths), 1)
    whole = loss(student, teacher, lengths, causal=causal)
    wanted = torch.autograd.grad(whole, student)
    made, log_relations = [], matching._log_relations
    monkeypatch.setattr(matching, "_log_relations", lambda x, _: made.append(len(x)) or log_relations(x, _))
    for sequences in (0, 1, 2):  # with 0 there is no room for one, yet one it is
        made.clear()
        monkeypatch.setattr(matching, "SCORES_AT_ONCE", sequences * HEADS * max(lengths) ** 2)
        found = loss(student, teacher, lengths, causal=causal)
        assert max(made) == max(sequences, 1) and sum(made) == 2 * 3 * len(lengths)
        assert abs(float((found - whole).detach())) <= 2**-45
        pairs = zip(torch.autograd.grad(found, student), wanted, strict=True)
        assert all(float((one - other).abs().max()) <= 2**-45 for one, other in pairs)


@either_way
def test_gradcheck_of_relations(causal):
    student, teacher = qkv(STUDENT, 6, 0), qkv(TEACHER, 6, 1)
    assert torch.autograd.gradcheck(lambda *mine: loss(mine, teacher, [3, 1, 2], causal=causal), student)


@every_length
@either_way
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_equal_relations_are_nothing_to_learn(lengths, causal, dtype):
    student = qkv((4, 6), sum(lengths), 0, dtype)
    # The same rows as two heads of width 12: what is compared is the heads joined.
    teacher = tuple(x.detach().transpose(1, 2).reshape(1, -1, 2, 12).transpose(1, 2) for x in student)
    found = loss(student, teacher, lengths, causal=causal)
    assert found.item() == 0.0  # no tolerance
    assert not any(gradient.any() for gradient in torch.autograd.grad(found, student))
    moved = tuple(x + 0.5 * torch.roll(x, 1, -1) for x in student)
    assert (loss(moved, teacher, lengths, causal=causal) > 0.01) == (max(lengths) > 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_relations_of_sixteen_bits_are_made_in_fp32(dtype):
    lengths = [5, 1, 7, 3]
    student, teacher = qkv(STUDENT, 16, 0, dtype), qkv(TEACHER, 16, 1, dtype)
    found = loss(student, teacher, lengths)
    exact, other = (tuple(x.detach().double().requires_grad_() for x in of) for of in (student, teacher))
    wanted = loss(exact, other, lengths)
    assert found.dtype == torch.float32
    assert abs(float((found - wanted).detach())) <= 2**-16  # scores of size 10 in fp32: 2^8 roundings of 2^-24
    for one, true in zip(torch.autograd.grad(found, student), torch.autograd.grad(wanted, exact), strict=True):
        # Rounded once to the working type: half an eps of a number of size 1 at most.
        assert one.dtype == dtype
        assert float((one.double() - true).abs().max()) <= torch.finfo(dtype).eps * float(true.abs().max())


def test_large_norms_do_not_overflow_fp16():
    lengths = [5, 1, 7, 3]
    student = qkv(STUDENT, 16, 0, torch.float16, 300.0)
    teacher = qkv(TEACHER, 16, 1, torch.float16, 300.0)
    top = max(float(x.detach().double().square().sum(-1).max()) for x in (*student, *teacher))
    assert top > 65504
    found = loss(student, teacher, lengths)
    exact, other = (tuple(x.detach().double().requires_grad_() for x in of) for of in (student, teacher))
    # A mean over positions, of three relations, of differences of scores up to ``top``: 16 roundings of each.
    assert abs(float((found - loss(exact, other, lengths)).detach())) <= 3 * 16 * 2**-24 * top
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(found, student))


def test_autocast_does_not_reach_the_statistics():
    student, teacher = qkv(STUDENT, 6, 0, torch.float32), qkv(TEACHER, 6, 1, torch.float32)
    wanted, apart = loss(student, teacher, [4, 2]), hidden_loss([(student[0], student[1])], None, 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(student, teacher, [4, 2])
        assert hidden_loss([(student[0], student[1])], None, 6) == apart
    assert found == wanted
    pairs = zip(torch.autograd.grad(found, student), torch.autograd.grad(wanted, student), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_shares_counts_and_no_grad():
    student, teacher = qkv(STUDENT, 6, 0), qkv(TEACHER, 6, 1)
    whole = loss(student, teacher, [4, 2], count=1)
    assert loss(student, teacher, [4, 2], count=8) == whole / 8  # a power of two: exact
    assert relation_loss(student, teacher, padding_of([4, 2]), HEADS, 0, causal=False) == whole
    with torch.no_grad():
        found = loss(student, teacher, [4, 2], count=1)
    assert found == whole and not found.requires_grad
    whole.backward()
    assert all(x.grad is None for x in teacher) and all(x.grad.any() for x in student)


def test_without_grad_there_is_no_gradient_to_pay_for(monkeypatch):
    student, teacher = qkv(STUDENT, 6, 0), qkv(TEACHER, 6, 1)
    products, matmul = [], torch.matmul
    monkeypatch.setattr(torch, "matmul", lambda *a, **k: products.append(1) or matmul(*a, **k))
    with torch.no_grad():
        loss(student, teacher, [4, 2])
    loss(tuple(x.detach() for x in student), teacher, [4, 2])
    assert len(products) == 0
    loss(student, teacher, [4, 2])
    assert len(products) == 3  # one for each relation: the products that the gradient is


def test_no_scores_wait_for_the_backward_pass():
    lengths, saved = [40, 30], []
    student, teacher = qkv(STUDENT, 70, 0), qkv(TEACHER, 70, 1)
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        loss(student, teacher, lengths)
    padded = 2 * 40 * 4 * 3  # B L A d
    assert max(saved) == padded < HEADS * 40 * 40


@pytest.mark.parametrize("heads", [1, 12, 48, 768])
def test_relation_heads_that_divide(heads):
    check_relation_heads(768, heads, "student")


@pytest.mark.parametrize(
    ("heads", "other", "fit"),
    [
        (7, 0, "6 or 8"), (0, 0, "1"), (-3, 0, "1"), (769, 0, "768"), (500, 0, "384 or 768"),
        (7, 256, "4 or 8"), (500, 384, "384"), (7, 769, "1"),
    ],
)  # fmt: skip
def test_relation_heads_that_do_not_divide(heads, other, fit):
    with pytest.raises(ConfigError) as caught:
        check_relation_heads(768, heads, "teacher", other)
    said = str(caught.value)
    assert said == (
        f"{heads} relation heads do not divide the width 768 of the teacher's attention; give --relation_heads {fit}"
    )


def test_what_does_not_go_together_is_refused():
    student, teacher = qkv(STUDENT, 6, 0), qkv(TEACHER, 6, 1)
    with pytest.raises(ConfigError, match="5 relation heads do not divide the width 12 of the student's"):
        relation_loss(student, teacher, padding_of([6]), 5, 6, causal=False)
    with pytest.raises(ConfigError, match="3 relation heads do not divide the width 8 of the teacher's"):
        relation_loss(student, qkv((2, 4), 6, 1), padding_of([6]), 3, 6, causal=False)
    with pytest.raises(ValueError, match="relation_loss: 6 rows of the student and 5 of the teacher"):
        loss(student, qkv(TEACHER, 5, 1), [6])
