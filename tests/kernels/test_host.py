"""HostFunctions: linear layers and dropout of any model's code are ours while it is on, and torch's otherwise."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from distil.kernels import build, cpu, dropout
from distil.kernels.host import HostFunctions, host_functions
from distil.kernels.packing import PackedWeights, in_use
from distil.kernels.paths import using

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler"),
    pytest.mark.usefixtures("one_thread"),
]
CPU = torch.device("cpu")


def layers() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.GELU(), nn.Linear(16, 4, bias=False))


def test_linear_layers_and_dropout_are_ours():
    model, weights, x = layers(), PackedWeights(0), torch.randn(5, 8)
    torch.manual_seed(1)
    with HostFunctions(weights, cpu.kernels()):
        ours = model(x)
    torch.manual_seed(1)
    first, _, gelu, last = model
    expected = last(gelu(dropout.dropout(first(x), 0.5, cpu.kernels())))
    assert torch.allclose(ours, expected, atol=1e-6)  # sums of 16 products in another order
    assert len(weights._packed) == 2
    ours.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_in_eval_mode_nothing_is_dropped():
    model, x = layers().eval(), torch.randn(5, 8)
    with HostFunctions(PackedWeights(0), cpu.kernels()):
        assert torch.allclose(model(x), model(x), atol=0)


def test_it_is_over_when_it_is_left():
    weights = PackedWeights(0)
    with pytest.raises(ZeroDivisionError), HostFunctions(weights, cpu.kernels()):
        assert in_use.get() is weights
        raise ZeroDivisionError
    assert in_use.get() is None
    layers()(torch.randn(5, 8))
    assert not weights._packed


@pytest.mark.parametrize("name", ["torch", "reference"])
def test_who_wants_no_compiled_code_gets_none(name):
    with using(name), host_functions(PackedWeights(), CPU):
        assert in_use.get() is None


def test_a_keyword_that_ours_do_not_know_is_torchs():
    x, weight = torch.randn(2, 8), torch.randn(4, 8)
    with HostFunctions(PackedWeights(0), cpu.kernels()):
        assert torch.allclose(nn.functional.linear(x, weight=weight), x @ weight.T, atol=1e-6)
        assert nn.functional.dropout(x.clone(), 0.5, True, True).shape == x.shape  # in place
