"""The cosine of a student of another width, whose hidden states come through a projection; on every path."""

from __future__ import annotations

import pytest
import torch
from losses import G, H, Setting, assert_close, defined, doubles, floor_of, row_cosine

from distil.kernels import TERMS

pytestmark = pytest.mark.usefixtures("one_thread", "path")

COS = TERMS.index("cos")


def projection(seed: int = 1) -> torch.Tensor:
    """A map (G, H), as of a linear layer."""
    return torch.randn(G, H, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("restrict", [False, True])
@pytest.mark.parametrize(
    "alphas",
    [{"cos": 1.0}, {"ce": 5.0, "mlm": 2.0, "cos": 1.0}, {"ce": 1.0, "mlm": 2.0, "clm": 3.0, "cos": 4.0, "mse": 5.0}],
    ids="+".join,
)
def test_value_and_gradients_are_the_definitions(alphas, restrict):
    s, map_GH = Setting(), projection()
    given = {f"alpha_{name}": alpha for name, alpha in alphas.items()}
    found = s.loss(restrict_ce_to_mask=restrict, projected_hidden_NG=s.hidden @ map_GH.T, **given)

    leaves, exact_GH = doubles(s), map_GH.detach().double().requires_grad_()
    terms = defined(s, leaves, restrict=restrict)
    pairs = zip(leaves[0], s.teacher_hidden.double(), strict=True)
    terms["cos"] = sum(1 - row_cosine(exact_GH @ mine, theirs) for mine, theirs in pairs) / 6
    total = sum(alpha * terms[name] for name, alpha in alphas.items())

    weight = max(alphas.values())
    assert_close(found.total, total.detach(), weight * floor_of(s, 2.0))
    assert_close(found.terms[COS], terms["cos"].detach(), 1.0)
    wanted = torch.autograd.grad(total, [*leaves, exact_GH], materialize_grads=True)
    gradients = torch.autograd.grad(found.total, [*s.leaves, map_GH], materialize_grads=True)
    assert gradients[-1].abs().max() > 0.01  # the projection learns
    for one, other in zip(gradients, wanted, strict=True):
        assert_close(one, other, weight * 2.0)


@pytest.mark.parametrize("alphas", [{"cos": 1.0}, {"ce": 5.0, "mlm": 2.0, "cos": 1.0}], ids="+".join)
def test_the_identity_gives_the_same_to_the_bit(alphas):
    s = Setting(same_width=True)
    given = {f"alpha_{name}": alpha for name, alpha in alphas.items()}
    plain = s.loss(**given)
    wanted = torch.autograd.grad(plain.total, s.leaves, materialize_grads=True)
    # Products with ones and sums with noughts are exact.
    found = s.loss(projected_hidden_NG=s.hidden @ torch.eye(H), **given)
    gradients = torch.autograd.grad(found.total, s.leaves, materialize_grads=True)
    assert plain.terms[COS] > 0.1 and torch.equal(found.total, plain.total) and torch.equal(found.terms, plain.terms)
    assert all(torch.equal(one, other) for one, other in zip(gradients, wanted, strict=True))


def test_the_cosine_sees_the_projected_alone():
    s = Setting(same_width=True)
    projected = s.hidden.detach().flip(0).requires_grad_()
    found = s.loss(alpha_cos=1.0, projected_hidden_NG=projected)
    hidden, of_projected = torch.autograd.grad(found.total, [s.hidden, projected], materialize_grads=True)
    assert not hidden.any() and of_projected.any(1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sixteen_bits_with_statistics_in_fp32(dtype):
    s = Setting()
    s.teacher_hidden = (s.teacher_hidden * 200).to(dtype)  # squares beyond fp16's 65504
    projected = (s.hidden.detach()[:, :G] * 200).to(dtype).requires_grad_()
    found = s.loss(alpha_cos=1.0, projected_hidden_NG=projected)
    exact = projected.detach().double().requires_grad_()
    pairs = zip(exact, s.teacher_hidden.double(), strict=True)
    wanted = sum(1 - row_cosine(mine, theirs) for mine, theirs in pairs) / 6
    assert_close(found.terms[COS], wanted.detach(), 1.0)
    (one,), (other,) = torch.autograd.grad(found.total * 2**10, projected), torch.autograd.grad(wanted * 2**10, exact)
    # Rounded once to 16 bits: half an eps of each number; fp16 goes on in steps of 2^-24 below 6e-5.
    torch.testing.assert_close(one.double(), other, rtol=torch.finfo(dtype).eps, atol=2**-20)


def test_it_is_not_looked_at_without_the_cosine():
    s = Setting()
    assert s.loss(alpha_ce=1.0, projected_hidden_NG=torch.zeros(6, G)).total == s.loss(alpha_ce=1.0).total


@pytest.mark.parametrize(
    ("projected", "said"),
    [
        (None, "of one width, not of 8 and 5: give projected_hidden_NG"),
        (torch.zeros(6, H), "projected hidden (6, 8) must be (N, G) as the teacher's are, (6, 5)"),
        (torch.zeros(5, G), "projected hidden (5, 5) must be"),
        (torch.zeros(1, 6, G), "projected hidden (1, 6, 5) must be"),
        (torch.zeros(6, G, device="meta"), "projected_hidden_NG on meta"),
        (torch.zeros(6, G, dtype=torch.int64), "projected_hidden_NG of torch.int64: floats are wanted"),
    ],
)
def test_what_does_not_go_together_is_refused(projected, said):
    s = Setting()
    s.loss(alpha_cos=1.0, projected_hidden_NG=torch.zeros(6, G))  # one that fits is fine
    with pytest.raises(ValueError) as caught:
        s.loss(alpha_cos=1.0, projected_hidden_NG=projected)
    assert said in str(caught.value) and str(caught.value).startswith("triple_loss")
