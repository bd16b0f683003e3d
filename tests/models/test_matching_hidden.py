"""The distance of hidden states against its formula."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distil.models.matching import hidden_loss

pytestmark = pytest.mark.usefixtures("one_thread")

N, H, G = 5, 4, 6


def states(width: int, seed: int, dtype=torch.float64, size: float = 1.0) -> torch.Tensor:
    drawn = torch.randn(N, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (drawn * size).to(dtype).requires_grad_()


def by_formula(pairs, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for student, teacher in pairs:
        for n in range(N):
            for g in range(len(bias)):
                mine = sum(weight[g, h] * student[n, h] for h in range(len(weight[g]))) + bias[g]
                total = total + (mine - teacher[n, g]) ** 2 / len(bias)
    return total


def test_distance_is_the_formulas():
    pairs = [(states(H, 0), states(G, 1)), (states(H, 2), states(G, 3))]
    project = nn.Linear(H, G, dtype=torch.float64)
    leaves = [pairs[0][0], pairs[1][0], project.weight, project.bias]
    found = hidden_loss(pairs, project, 7)
    wanted = by_formula(pairs, project.weight, project.bias) / 7
    # Sixty squares of numbers of size 3, sums of a few products each: 2^8 roundings of 2^-53 of a number of size 8.
    assert wanted > 0.5 and abs(float((found - wanted).detach())) <= 2**-42
    given = torch.autograd.grad(found, leaves, retain_graph=True)
    for one, other in zip(given, torch.autograd.grad(wanted, leaves), strict=True):
        assert float((one - other).abs().max()) <= 2**-42
    found.backward()
    assert all(teacher.grad is None for _, teacher in pairs)


def test_without_a_projection_states_are_compared_as_they_are():
    pairs = [(states(G, 0), states(G, 1))]
    found = hidden_loss(pairs, None, N)
    wanted = by_formula(pairs, torch.eye(G, dtype=torch.float64), torch.zeros(G)) / N
    assert abs(float((found - wanted).detach())) <= 2**-42  # as above
    equal = hidden_loss([(pairs[0][0], pairs[0][0].detach())], None, N)
    assert equal.item() == 0.0 and not torch.autograd.grad(equal, pairs[0][0])[0].any()


def test_gradcheck_of_distances():
    teacher = states(G, 1)
    weight = torch.randn(G, H, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
    distance = lambda student, weight: hidden_loss([(student, teacher)], lambda x: x @ weight.T, 3)
    assert torch.autograd.gradcheck(distance, [states(H, 0), weight])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("size", [1.0, 2000.0])  # squares of the latter are beyond fp16
def test_sixteen_bits_with_statistics_in_fp32(dtype, size):
    student, teacher = states(G, 0, dtype, size), states(G, 1, dtype, size)
    found = hidden_loss([(student, teacher)], None, N)
    exact = student.detach().double().requires_grad_()
    wanted = hidden_loss([(exact, teacher.double())], None, N)
    assert found.dtype == torch.float32
    # Squares are positive: thirty roundings of fp32 at most, of what they sum to.
    assert abs(float((found - wanted).detach())) <= 32 * 2**-24 * float(wanted.detach())
    (one,), (other,) = torch.autograd.grad(found, student), torch.autograd.grad(wanted, exact)
    torch.testing.assert_close(one.double(), other, rtol=torch.finfo(dtype).eps, atol=2**-20)  # rounded once


def test_counts():
    pairs = [(states(G, 0), states(G, 1))]
    assert hidden_loss(pairs, None, 8) == hidden_loss(pairs, None, 1) / 8  # a power of two: exact
    assert hidden_loss(pairs, None, 0) == hidden_loss(pairs, None, 1)
    assert hidden_loss(pairs * 2, None, 1) == 2 * hidden_loss(pairs, None, 1)
    assert hidden_loss([(states(G, 0)[:0], states(G, 1)[:0])], None, 0) == 0.0


def test_what_does_not_go_together_is_refused():
    with pytest.raises(ValueError, match="no hidden states"):
        hidden_loss([], None, 1)
    with pytest.raises(ValueError, match=r"\(5, 4\) of the student and \(5, 6\) of the teacher.*project"):
        hidden_loss([(states(H, 0), states(G, 1))], None, 1)
