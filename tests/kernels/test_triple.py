"""What holds for every path of the triple loss: values, gradients, shares, and rows it must not touch."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from losses import G, H, Setting, assert_close, check_against_definition

from distil.kernels import TERMS, Head, triple_loss

pytestmark = pytest.mark.usefixtures("one_thread", "path")

ALPHAS = [
    {"ce": 5.0, "mlm": 2.0, "cos": 1.0},
    {"ce": 1.0}, {"mlm": 1.0}, {"cos": 1.0}, {"clm": 1.0}, {"mse": 1.0},
    {"ce": 0.5, "mse": 2.0}, {"mlm": 1.0, "clm": 3.0}, {"ce": 1.0, "clm": 1.0},
    {"ce": 1.0, "mlm": 2.0, "clm": 3.0, "cos": 4.0, "mse": 5.0},
]  # fmt: skip


@pytest.mark.parametrize("restrict", [False, True])
@pytest.mark.parametrize("alphas", ALPHAS, ids="+".join)
def test_every_combination_of_terms(alphas, restrict):
    check_against_definition(Setting(same_width="cos" in alphas), 2.0, alphas, restrict)


@pytest.mark.parametrize("vocab", [2, 7, 30_522])
@pytest.mark.parametrize("t", [1.0, 2.0, 4.0])
def test_temperatures_and_vocabularies(t, vocab):
    s = Setting(rows=4, vocab=vocab, masked=(0, 3), same_width=True, seed=vocab)
    check_against_definition(s, t, {"ce": 5.0, "mlm": 2.0, "cos": 1.0}, False)


@pytest.mark.parametrize("restrict", [False, True])
@pytest.mark.parametrize("masked", [(), (0,), tuple(range(6))])
def test_no_one_and_all_rows_masked(masked, restrict):
    s = Setting(masked=masked)
    check_against_definition(s, 2.0, {"ce": 5.0, "mlm": 2.0, "mse": 1.0, "clm": 1.0}, restrict)


@pytest.mark.parametrize("seed", range(5))
def test_other_numbers(seed):
    s = Setting(rows=9, vocab=11, masked=(0, 2, 8), seed=seed, same_width=True)
    check_against_definition(s, 3.0, ALPHAS[-1], bool(seed % 2))


def test_a_weight_of_zero_and_no_row_give_a_gradient_of_zero():
    s = Setting(masked=())
    found = s.loss(alpha_mlm=1.0)
    assert found.total.item() == 0.0
    assert all(not grad.any() for grad in torch.autograd.grad(found.total, s.leaves, materialize_grads=True))


# --- extremes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1.0, 2.0, 4.0])
def test_logits_of_ten_thousand_are_finite_and_right(t):
    s = Setting(rows=4, vocab=30, masked=(0, 2), size=0.0)
    signs = torch.randint(0, 2, (2, 30), generator=torch.Generator().manual_seed(0)) * 2e4 - 1e4
    with torch.no_grad():
        s.bias.copy_(signs[0])
    s.teacher_bias = signs[1]
    assert s.bias.detach().abs().min() == 1e4 and not torch.equal(*signs)
    check_against_definition(s, t, {"ce": 1.0, "mlm": 1.0, "mse": 1.0}, False)
    found = s.loss(temperature=t, alpha_ce=1.0, alpha_mlm=1.0, alpha_mse=1.0)
    grads = torch.autograd.grad(found.total, s.leaves)
    assert found.total.isfinite() and all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize("vocab", [2, 7, 30_522])
@pytest.mark.parametrize("t", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("restrict", [False, True])
def test_equal_logits_have_a_divergence_of_exactly_zero(t, vocab, restrict):
    s = Setting(vocab=vocab)
    student, _ = s.heads()
    found = triple_loss(
        s.hidden, student, s.hidden.detach(), student, s.labels, **s.counts, temperature=t, alpha_ce=5.0,
        alpha_mse=1.0, alpha_cos=1.0, restrict_ce_to_mask=restrict,
    )  # fmt: skip
    terms = dict(zip(TERMS, found.terms.tolist(), strict=True))
    assert terms["ce"] == 0.0 and terms["mse"] == 0.0  # no tolerance: the same kernel on the same numbers
    assert terms["teacher_mlm"] == terms["mlm"] > 0
    # 1 - cos of a vector with itself: a few roundings of numbers of size 1.
    assert abs(terms["cos"]) < 1e-6


def test_working_precision_is_the_hidden_states_and_the_rest_is_fp32():
    s = Setting(same_width=True, vocab=50)
    exact = s.loss(alpha_ce=5.0, alpha_mlm=2.0, alpha_cos=1.0)
    for name in ("hidden", "weight", "bias", "teacher_hidden", "teacher_weight", "teacher_bias"):
        setattr(s, name, getattr(s, name).detach().bfloat16())
    found = s.loss(alpha_ce=5.0, alpha_mlm=2.0, alpha_cos=1.0)
    assert found.total.dtype == found.terms.dtype == torch.float32
    # bf16 keeps 8 bits: logits of size 5 are off by up to 0.02, each term (about 4) by a few times that, KL by T^2.
    assert abs(found.total.item() - exact.total.item()) < 0.05 * exact.total.item()
    logits = s.heads()[0].logits(s.hidden)
    assert logits.dtype == torch.float32 and logits.shape == (6, 50)


# --- shares of a global batch --------------------------------------------------------------------------------------


@pytest.mark.parametrize("restrict", [False, True])
def test_shares_of_a_split_sum_to_the_whole(restrict):
    s = Setting(rows=10, masked=(0, 1, 2, 9), same_width=True)
    options = {f"alpha_{name}": alpha for name, alpha in ALPHAS[-1].items()} | {"restrict_ce_to_mask": restrict}
    whole = s.loss(**options)
    parts = [s.loss(rows, **options) for rows in (slice(0, 3), slice(3, 7), slice(7, 10))]  # the second has no mask
    total = torch.stack([part.total for part in parts]).sum()
    # The same sums in another order: some ten roundings of 2^-24 each.
    torch.testing.assert_close(total, whole.total, rtol=16 * 2**-24, atol=0)
    torch.testing.assert_close(sum(p.terms for p in parts), whole.terms, rtol=16 * 2**-24, atol=16 * 2**-24)
    for one, other in zip(
        torch.autograd.grad(total, s.leaves), torch.autograd.grad(whole.total, s.leaves), strict=True
    ):
        assert_close(one, other.double(), 0.0)


@pytest.mark.parametrize(
    ("term", "count"),
    [("ce", "attended"), ("mse", "attended"), ("cos", "attended"), ("mlm", "masked"), ("clm", "next")],
)
def test_each_term_is_divided_by_its_own_count(term, count):
    s = Setting(same_width=True)
    before = s.loss(**{f"alpha_{term}": 1.0})
    s.counts[f"{count}_count"] *= 4  # a power of two: the quotient is exact
    assert s.loss(**{f"alpha_{term}": 1.0}).total == before.total / 4
    for other in {"attended", "masked", "next"} - {count}:
        s.counts[f"{other}_count"] *= 2
    assert s.loss(**{f"alpha_{term}": 1.0}).total == before.total / 4


def test_soft_terms_over_masked_rows_are_divided_by_the_masked():
    s = Setting()
    before = s.loss(alpha_ce=1.0, alpha_mse=1.0, restrict_ce_to_mask=True).total
    s.counts["attended_count"] *= 8
    assert s.loss(alpha_ce=1.0, alpha_mse=1.0, restrict_ce_to_mask=True).total == before
    s.counts["masked_count"] *= 4
    assert s.loss(alpha_ce=1.0, alpha_mse=1.0, restrict_ce_to_mask=True).total == before / 4


# --- what is computed and what is not ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "student_rows", "teacher_rows"),
    [
        ({"alpha_ce": 1.0, "alpha_mlm": 1.0}, [6], [6]),
        ({"alpha_mse": 1.0}, [6], [6]),
        ({"alpha_ce": 1.0, "alpha_mlm": 1.0, "restrict_ce_to_mask": True}, [2], [2]),
        ({"alpha_mse": 1.0, "restrict_ce_to_mask": True}, [2], [2]),
        ({"alpha_mlm": 1.0}, [2], []),
        ({"alpha_cos": 1.0}, [2], []),  # the two rows of the masked-LM curve
        ({"alpha_clm": 1.0}, [6], []),
        ({"alpha_clm": 1.0, "alpha_ce": 1.0, "restrict_ce_to_mask": True}, [6], [2]),
    ],
)
def test_logits_are_computed_once_for_the_rows_that_need_them(options, student_rows, teacher_rows):
    s = Setting(same_width=True)
    s.loss(**options)
    assert (s.seen, s.teacher_seen) == (student_rows, teacher_rows)


@pytest.mark.parametrize("restrict", [False, True])
@pytest.mark.parametrize("masked", [(), (1, 4), tuple(range(6))])
def test_masked_rows_can_be_given(masked, restrict):
    s = Setting(masked=masked)
    options = {"alpha_ce": 5.0, "alpha_mlm": 2.0, "alpha_clm": 1.0, "restrict_ce_to_mask": restrict}
    found, wanted = s.loss(masked_rows_M=torch.tensor(masked, dtype=torch.int64), **options), s.loss(**options)
    assert found.total == wanted.total and torch.equal(found.terms, wanted.terms)


def test_nothing_reaches_the_teacher():
    s = Setting(same_width=True)
    mine = [s.teacher_hidden, s.teacher_weight, s.teacher_bias]
    for tensor in mine:
        tensor.requires_grad_()
    s.loss(**{f"alpha_{name}": alpha for name, alpha in ALPHAS[-1].items()}).total.backward()
    assert all(tensor.grad is None for tensor in mine)
    assert all(leaf.grad is not None for leaf in s.leaves)


def test_the_masked_lm_loss_is_told_without_weight_and_trains_nothing():
    s = Setting()
    with_it, without = s.loss(alpha_ce=1.0, alpha_mlm=3.0), s.loss(alpha_ce=1.0)
    mlm = TERMS.index("mlm")
    assert without.terms[mlm] == with_it.terms[mlm] > 0
    assert without.total == without.terms[TERMS.index("ce")]


def test_terms_are_detached_and_the_total_carries_the_gradient():
    s = Setting()
    found = s.loss(alpha_ce=1.0, alpha_mlm=1.0)
    assert found.total.requires_grad and not found.terms.requires_grad
    with torch.no_grad():
        assert not s.loss(alpha_ce=1.0, alpha_mlm=1.0).total.requires_grad


def test_without_a_teacher_the_cross_entropies_are_the_same():
    s = Setting()
    found = triple_loss(
        s.hidden, s.heads()[0], None, None, s.labels, s.next, **s.counts, temperature=1.0, alpha_mlm=2.0, alpha_clm=1.0
    )
    assert found.total == s.loss(alpha_mlm=2.0, alpha_clm=1.0, temperature=1.0).total


def test_a_head_without_bias():
    s = Setting()
    head = Head(torch.tanh, s.weight, None)
    biased = Head(torch.tanh, s.weight, torch.zeros(7))
    assert torch.equal(head.logits(s.hidden), biased.logits(s.hidden))


# --- mistakes ------------------------------------------------------------------------------------------------------


def arguments(**changes):
    s = Setting()
    student, teacher = s.heads()
    given = {
        "student_hidden_NH": s.hidden, "student_head": student, "teacher_hidden_NG": s.teacher_hidden,
        "teacher_head": teacher, "labels_N": s.labels, **s.counts, "temperature": 1.0, "alpha_ce": 1.0,
    }  # fmt: skip
    return given | changes


S = SimpleNamespace(hidden=Setting().hidden.detach(), labels=Setting().labels)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"student_hidden_NH": S.hidden[None]}, "(1, 6, 8)"),
        ({"student_hidden_NH": S.hidden[:, 0]}, "(6,)"),
        ({"labels_N": S.labels[:5]}, "(5,)"),
        ({"labels_N": S.labels[None]}, "(1, 6)"),
        ({"teacher_hidden_NG": None}, "need a teacher"),
        ({"teacher_head": None}, "need a teacher"),
        ({"teacher_hidden_NG": None, "teacher_head": None, "alpha_ce": 0.0, "alpha_cos": 1.0}, "need a teacher"),
        ({"teacher_hidden_NG": None, "teacher_head": None, "alpha_ce": 0.0, "alpha_mse": 1.0}, "need a teacher"),
        ({"teacher_hidden_NG": torch.zeros(5, G)}, "5 teacher rows, 6 student rows"),
        ({"teacher_hidden_NG": torch.zeros(6, 1), "alpha_cos": 1.0}, "of one width, not of 8 and 1"),
        ({"alpha_clm": 1.0}, "needs next_labels_N"),
        ({"alpha_clm": 1.0, "next_labels_N": S.labels[:5]}, "needs next_labels_N"),
        ({"teacher_head": Head(torch.tanh, torch.zeros(9, G), None)}, "vocabularies of 7 and 9"),
        ({"student_head": Head(torch.tanh, torch.zeros(7, H + 1), None)}, "(6, 8) and weight (7, 9) cannot be"),
        ({"student_head": Head(torch.tanh, torch.zeros(7, H), torch.zeros(8))}, "bias (8,), weight (7, 8)"),
        ({"student_head": Head(torch.tanh, torch.zeros(7, H).half(), None)}, "rows of torch.float32 and head of"),
        ({"student_head": Head(torch.tanh, torch.zeros(7, H, device="meta"), None)}, "weight_VH on meta"),
        ({"labels_N": S.labels.to("meta")}, "labels_N on meta"),
        ({"labels_N": S.labels.int()}, "labels_N of torch.int32"),
        ({"labels_N": S.labels.clamp(max=-100).index_fill(0, torch.tensor([2]), 7)}, "labels_N holds 7, no id"),
        ({"labels_N": S.labels.clamp(max=-100).index_fill(0, torch.tensor([2]), -1)}, "labels_N holds -1, no id"),
        ({"alpha_clm": 1.0, "next_labels_N": torch.full((6,), 99)}, "next_labels_N holds 99, no id"),
        ({"masked_rows_M": torch.zeros(2)}, "masked_rows_M of torch.float32"),
        ({"masked_rows_M": torch.tensor([[1, 4]])}, "masked_rows_M of shape (1, 2)"),
        ({"masked_rows_M": torch.tensor([1])}, "masked_rows_M are not the labelled rows"),
        ({"masked_rows_M": torch.tensor([1, 1, 4])}, "masked_rows_M are not the labelled rows"),
        ({"masked_rows_M": torch.tensor([1, 9])}, "masked_rows_M are not the labelled rows"),
        ({"student_head": Head(lambda rows: rows[:3], torch.zeros(7, H), None)}, "transform made (3, 8) of 6 rows"),
        ({"teacher_head": Head(lambda rows: rows[:1], torch.zeros(7, G), None)}, "transform made (1, 5) of 6 rows"),
        (
            {
                "student_head": Head(torch.tanh, torch.zeros(0, H), None),
                "labels_N": torch.full((6,), -100),
                "teacher_head": Head(torch.tanh, torch.zeros(0, G), None),
            },
            "weight (0, 8) cannot be",
        ),
        ({"teacher_hidden_NG": torch.zeros(6, 1, G)}, "teacher hidden (6, 1, 5) must be"),
        ({"temperature": 0.0}, "temperature 0.0"),
        ({"temperature": math.inf}, "temperature inf"),
        ({"alpha_mlm": -1.0}, "weights 0 or more"),
        ({"alpha_ce": math.nan}, "weights 0 or more"),
    ],
)
def test_what_does_not_go_together_is_refused(changes, said):
    triple_loss(**arguments())  # the same without the change is fine
    with pytest.raises(ValueError) as caught:
        triple_loss(**arguments(**changes))
    assert said in str(caught.value) and str(caught.value).startswith("triple_loss")
