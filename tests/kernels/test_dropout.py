"""Dropout on a CPU: how many stay, that the gradient takes the same way, and what it is a function of."""

from __future__ import annotations

import ctypes
import math

import pytest
import torch

from distil.kernels import build
from distil.kernels.cpu import CpuKernels
from distil.kernels.dropout import dropout

pytestmark = [
    pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler"),
    pytest.mark.usefixtures("one_thread"),
]
DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


@pytest.fixture(scope="module")
def kernels() -> CpuKernels:
    return CpuKernels(ctypes.CDLL(str(build.cpu_library())))


def kept(kernels: CpuKernels, count: int, p: float, seed: int) -> torch.Tensor:
    """Which of so many numbers stay."""
    return kernels.dropout(torch.ones(count), p, seed) != 0


def deviations(successes: int, trials: int, p: float) -> float:
    """How many standard deviations a binomial count is from its mean."""
    return abs(successes - trials * p) / math.sqrt(trials * p * (1 - p))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_a_share_stays_whatever_the_seed(kernels, p):
    count = 1 << 20
    for seed in (0, 1, 2**32, 2**63 - 2, 123456789):
        # 6 deviations: for chance alone 2e-9.
        assert deviations(int(kept(kernels, count, p, seed).sum()), count, 1 - p) < 6


def test_places_and_seeds_know_nothing_of_each_other(kernels):
    count = 1 << 20
    one = kept(kernels, count, 0.5, 7)
    others = {
        "next place": one.roll(1), "16 places on": one.roll(16), "a row of 768 on": one.roll(768),
        "next seed": kept(kernels, count, 0.5, 8), "seed's high half": kept(kernels, count, 0.5, 7 + 2**32),
        "next seed, next place": kept(kernels, count, 0.5, 8).roll(1),
    }  # fmt: skip
    for name, other in others.items():
        assert deviations(int((one == other).sum()), count, 0.5) < 6, name


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_stays_is_multiplied_and_every_end_is_handled(kernels, dtype):
    for count in (*range(1, 70), 1023):
        x = torch.randn(count + 8).to(dtype)
        out = kernels.dropout(x[:count].contiguous(), 0.25, 5)
        expected = torch.where(kept(kernels, count, 0.25, 5), (x[:count].double() / 0.75).to(dtype), 0)
        # One rounding of the product by a factor that itself is rounded to fp32: two units in the last place.
        assert torch.allclose(out.double(), expected.double(), rtol=2 * torch.finfo(dtype).eps + 2**-23, atol=0)
        assert torch.equal(out == 0, ~kept(kernels, count, 0.25, 5) | (x[:count] == 0))


def test_the_mask_is_one_for_all_vectors_types_and_threads(kernels):
    whole = kept(kernels, 1000, 0.3, 11)
    for dtype in DTYPES:
        assert torch.equal(kernels.dropout(torch.ones(1000, dtype=dtype), 0.3, 11) != 0, whole)
    short = CpuKernels(ctypes.CDLL(str(build.cpu_library("x86-64")))) if "x86" in build.platform.machine() else kernels
    assert torch.equal(kept(short, 1000, 0.3, 11), whole)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert torch.equal(kept(kernels, 1000, 0.3, 11), whole)
    finally:
        torch.set_num_threads(threads)


def test_the_gradient_takes_the_same_way(kernels):
    x = torch.randn(7, 33, requires_grad=True)
    torch.manual_seed(3)
    y = dropout(x, 0.4, kernels)
    upstream = torch.randn_like(y)
    y.backward(upstream)
    scale = 1 / (1 - round(0.4 * 2**32) / 2**32)
    assert torch.equal(x.grad, torch.where(y != 0, upstream * torch.tensor(scale, dtype=torch.float32), 0.0))


def test_torchs_generator_decides(kernels):
    x = torch.ones(1000)
    torch.manual_seed(3)
    first, second = dropout(x, 0.5, kernels), dropout(x, 0.5, kernels)
    torch.manual_seed(3)
    assert torch.equal(dropout(x, 0.5, kernels), first)
    assert not torch.equal(first, second)


def test_nothing_and_all(kernels):
    x = torch.randn(10)
    assert dropout(x, 0.0, kernels) is x
    assert torch.equal(dropout(x, 1.0, kernels), torch.zeros(10))
