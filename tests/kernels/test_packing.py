"""Weights laid out once: the same products and gradients, and never those of weights that have changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distil.kernels.packing import PackedWeights, available

pytestmark = pytest.mark.usefixtures("one_thread")
TYPES = [
    pytest.param(dtype, marks=pytest.mark.skipif(not available(dtype), reason=f"oneDNN has no {dtype} here"))
    for dtype in (torch.float32, torch.bfloat16)
]
SHAPES = [(1, 1, 1), (3, 5, 7), (17, 64, 48), (130, 33, 501)]


def tensors(rows: int, inner: int, columns: int, dtype: torch.dtype, seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((rows, inner), (columns, inner), (columns,))
    return [torch.randn(*shape, generator=draw).to(dtype).requires_grad_() for shape in shapes]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("biased", [True, False])
def test_as_torchs_own_linear(dtype, shape, biased):
    rows, weight, bias = tensors(*shape, dtype)
    rows3, bias = rows.detach().unsqueeze(0).requires_grad_(), bias if biased else None
    ours = PackedWeights(0).linear(rows3, weight, bias)
    truth = F.linear(rows3.double(), weight.double(), None if bias is None else bias.double())
    upstream = torch.randn_like(ours)
    wanted = [tensor for tensor in (rows3, weight, bias) if tensor is not None]
    gradients, true = (torch.autograd.grad(y, wanted, upstream.to(y.dtype)) for y in (ours, truth))
    # Sums of up to 130 products in fp32, in any order, then one rounding: 2^-17 of the largest, and half a unit.
    for mine, exact in zip((ours, *gradients), (truth, *true), strict=True):
        scale = float(exact.detach().abs().max()) + 1
        assert mine.dtype == dtype
        assert float((mine.double() - exact).detach().abs().max()) <= scale * (torch.finfo(dtype).eps + 2**-17)


@pytest.mark.parametrize("dtype", TYPES)
def test_a_product_is_the_same_whatever_came_before(dtype):
    rows, weight, bias = (tensor.detach() for tensor in tensors(40, 48, 64, dtype))
    one, other = PackedWeights(0), PackedWeights(0)
    other.product(rows[:3], weight, bias)
    assert torch.equal(one.product(rows, weight, bias), other.product(rows, weight, bias))


@pytest.mark.parametrize("dtype", TYPES)
def test_trained_weights_are_laid_out_anew_once_told(dtype):
    packed, (rows, weight, bias) = PackedWeights(0), tensors(4, 8, 16, dtype)
    frozen = weight.detach().clone()
    before = packed.linear(rows, weight, bias), packed.linear(rows, frozen, bias)
    with torch.no_grad():
        weight.mul_(2)
    assert torch.equal(packed.linear(rows, weight, bias), before[0])  # which is why it must be told
    packed.forget()
    assert torch.equal(packed.linear(rows, weight, None), 2 * PackedWeights(0).linear(rows, frozen, None))
    assert torch.equal(packed.linear(rows, frozen, bias), before[1])
    assert len(packed._packed) == 2  # the frozen one's was not made anew


def test_what_it_does_not_take():
    rows, weight, _ = tensors(4, 8, 16, torch.float32)
    packed, weight = PackedWeights(0), nn.Parameter(weight.detach())
    assert packed.takes(rows, weight)
    assert not packed.takes(rows, weight.detach())  # no parameter: it would be laid out for one product
    with torch.autocast("cpu", torch.bfloat16):
        assert not packed.takes(rows, weight)
    assert not PackedWeights(8 * 16 + 1).takes(rows, weight)
    assert not packed.takes(rows.double(), nn.Parameter(weight.detach().double()))
    assert not packed.takes(rows.bfloat16(), weight)
    weight.ds_id = 3  # as ZeRO-3 marks what it gathers and frees
    assert not packed.takes(rows, weight)
