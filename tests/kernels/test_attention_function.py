"""Attention on a CPU: what its dropout drops, and the function around the kernel."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from attended import DTYPES, Packed, same
from torch import Tensor

from distil.kernels import build
from distil.kernels.attention import attention, takes
from distil.kernels.cpu import CpuKernels

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler"),
]

# --- dropout -------------------------------------------------------------------------------------------------------


def kept_by(packed: Packed, kernels: CpuKernels) -> list[Tensor]:
    """Which weights are kept, bool (A, L, L) a sequence: equal scores weigh alike, and a value tells its own key."""
    nothing, width, reading = torch.zeros_like(packed.qkv[0]), packed.qkv[0].shape[3], []
    bounds = packed.how.ends_B1.tolist()
    for first in range(0, max(b - a for a, b in pairwise(bounds)), width):
        values = nothing.clone()
        for start, end in pairwise(bounds):
            for i in range(first, min(first + width, end - start)):
                values[0, :, start + i, i - first] = 1
        reading.append(kernels.attention((nothing, nothing, values), packed.how)[0].transpose(0, 1) > 0)
    return [torch.cat(reading, -1)[:, a:b, : b - a] for a, b in pairwise(bounds)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_dropped_is_dropped_in_the_gradients_too(kernels, dtype):
    packed = Packed([1, 14, 73, 129], 2, 20, dtype, dropout=0.2, seed=2**61 + 12345)
    packed.check(kernels, kept_by(packed, kernels))


def test_what_is_dropped_depends_on_places_and_seed_alone(kernels):
    """Neither on how many numbers a vector has, nor on the type."""
    masks = [kept_by(Packed([129], 2, 64, dtype, dropout=0.2, seed=7), kernels)[0] for dtype in DTYPES]
    assert same(masks[1:], masks[:1] * 3)
    other = kept_by(Packed([129], 2, 64, torch.float32, dropout=0.2, seed=7 + 2**32), kernels)[0]
    assert not torch.equal(masks[0], other)


def test_dropout_is_of_the_share_asked_for_and_rows_and_heads_draw_apart(kernels):
    for share in (0.1, 0.5):
        packed = Packed([128, 128], 4, 128, torch.float32, dropout=share, seed=11)
        kept = torch.stack(kept_by(packed, kernels)).flatten(0, 1).double()  # eight matrices
        # A binomial count: five standard deviations, which a right share leaves once in two million seeds.
        assert abs(kept.mean() - (1 - share)) < 5 * (share * (1 - share) / kept.numel()) ** 0.5
        apart = (kept - (1 - share)) / (share * (1 - share)) ** 0.5  # of mean 0 and variance 1
        rows = (
            [apart.flatten(0, 1), apart.mT.flatten(0, 1)] if share == 0.5 else []
        )  # where 128 numbers are near normal
        for vectors in (apart.flatten(1), *rows):
            # Correlations of matrices, of rows, of columns: each of variance 1 / n; 523,776 pairs stay within six.
            close = vectors @ vectors.T / vectors.shape[1]
            close.fill_diagonal_(0)
            assert close.abs().max() < 6 * vectors.shape[1] ** -0.5


# --- the function --------------------------------------------------------------------------------------------------


def leaves_of(packed: Packed) -> list[Tensor]:
    return [x.detach().requires_grad_() for x in packed.qkv]


def test_of_any_strides_with_gradients(kernels):
    packed = Packed([5, 20], 3, 16, torch.float32)
    wanted, h = packed.through(kernels), packed.how
    for laid in (
        lambda x: x,
        lambda x: x.contiguous(),
        lambda x: x.mT.contiguous().mT,  # neighbours of a token's numbers are other tokens'
        lambda x: x[:, :, :, :1].repeat(1, 1, 1, 32)[..., ::2].copy_(x),
    ):
        leaves = leaves_of(packed)
        out = attention(
            *map(laid, leaves), h.ends_B1, causal=False, window=None, scale=h.scale, dropout=0.0, kernels=kernels
        )  # fmt: skip
        assert out.shape == (1, 25, 3, 16) and torch.equal(out[0], wanted[0])
        found = torch.autograd.grad(out.transpose(1, 2), leaves, packed.upstream.transpose(0, 1).unsqueeze(0))
        assert same([x[0].transpose(0, 1) for x in found], wanted[1:])


def test_seeds_come_from_torch_s_generator(kernels):
    packed = Packed([30], 2, 16, torch.float32)
    how = dict(causal=False, window=None, scale=0.25, kernels=kernels)

    def twice(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        return [attention(*packed.qkv, packed.how.ends_B1, dropout=0.3, **how) for _ in range(2)]

    one, again, other = twice(1), twice(1), twice(2)
    assert same(one, again) and not torch.equal(*one) and not torch.equal(one[0], other[0])
    state = torch.get_rng_state()
    attention(*packed.qkv, packed.how.ends_B1, dropout=0.0, **how)
    assert torch.equal(torch.get_rng_state(), state), "a seed was drawn for nothing"
    leaves = leaves_of(packed)
    out = attention(*leaves, packed.how.ends_B1, dropout=1.0, **how)
    assert not out.any() and not any(x.any() for x in torch.autograd.grad(out.sum(), leaves))


def test_what_it_is_for():
    q = torch.zeros(1, 2, 5, 8)
    assert takes(q, q, q, 0.5)
    for others in ((q, q[:, :1]), (q.half(), q), (q.to("meta"),) * 2):
        assert not takes(q.to("meta") if others[0].is_meta else q, *others, 0.5)
    assert not takes(q, q, q, 0.0) and not takes(q, q, q, -1.0) and not takes(*[q.long()] * 3, 0.5)


@pytest.mark.parametrize("ends", [[0, 5, 4, 9], [0, 8], [1, 9]])
def test_ends_that_cannot_be_are_refused(kernels, ends):
    q = torch.zeros(1, 2, 9, 8)
    how = dict(causal=False, window=None, scale=0.25, dropout=0.0, kernels=kernels)
    with pytest.raises(AssertionError):
        attention(q, q, q, torch.tensor(ends, dtype=torch.int32), **how)
