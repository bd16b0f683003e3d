"""csrc/attention.cpp against attention's definition in float64, for short, middling and long vectors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from processors import within
from torch import Tensor

from distil.kernels import build
from distil.kernels.attention import attention, takes
from distil.kernels.contract import statistics_dtype
from distil.kernels.cpu import QKV, CpuKernels, How

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
ENDS_OF_LANES = [*range(1, 71), 127, 128, 129]  # every end that blocks of queries, strips and lanes of keys can have
VIEWS = {"all": (False, None), "past": (True, None), "window": (False, 5), "past window": (True, 3), "own": (False, 0)}
every_view = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler"),
]


class Packed:
    """Queries, keys, values and an output's gradient of packed sequences, from one tensor as of a joint projection."""

    def __init__(
        self, lengths: list[int], heads: int, width: int, dtype: torch.dtype, *, size: float = 1.0, **how: object
    ) -> None:
        draw = torch.Generator().manual_seed(len(lengths) * width)
        ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
        joint = torch.randn(int(ends[-1]), 4, heads, width, generator=draw)
        joint[:, :2] *= size
        *qkv, self.upstream = joint.to(dtype).unbind(1)
        self.qkv: QKV = tuple(x.transpose(0, 1).unsqueeze(0) for x in qkv)
        self.how = replace(How(ends, width**-0.5, False, None, 0.0, 0), **how)

    def through(self, kernels: CpuKernels) -> list[Tensor]:
        """Output and gradients, each (N, A, d)."""
        out, logs = kernels.attention(self.qkv, self.how)
        return [out, *kernels.attention_gradients(self.qkv, self.upstream.contiguous(), logs, self.how)]

    def sequences(self) -> Iterator[tuple[slice, list[Tensor]]]:
        """Where each sequence lies, and what it is given in float64, (A, L, d)."""
        for start, end in pairwise(self.how.ends_B1.tolist()):
            upstream = self.upstream[start:end].transpose(0, 1)
            yield slice(start, end), [x.double() for x in (*(x[0, :, start:end] for x in self.qkv), upstream)]

    def check(self, kernels: CpuKernels, kept: list[Tensor] | None = None) -> None:
        """Against the definition, to the roundings of each number's own terms.

        A product's factors may be rounded to bf16: weights, and gradients of scores, to 2^-8 of themselves each. What
        comes out is rounded once. All else is in the statistics' type: a score is off by some roundings of its terms'
        size, of which a weight is off relatively, and sums and exponentials by some more. A weight below the least normal
        number may be 0; all numbers here are below 64.
        """
        dtype, h = self.qkv[0].dtype, self.how
        own, within_it = torch.finfo(dtype), torch.finfo(statistics_dtype(dtype))
        factor = own.eps / 2 if dtype == torch.bfloat16 else 0.0
        found = self.through(kernels)
        for number, (where, (q, k, v, back)) in enumerate(self.sequences()):
            seen = visible(q.shape[1], h)
            scores = (q @ k.mT * h.scale).masked_fill(~seen, -torch.inf)
            grown = torch.ones(()) if kept is None else kept[number] / (1 - h.dropout)
            weights, given = scores.softmax(-1), back @ v.mT * grown
            slopes = weights * (given - (weights * given).sum(-1, keepdim=True)) * h.scale
            spread = (back.abs() @ v.abs().mT) * grown
            spread = weights * (spread + (weights * spread).sum(-1, keepdim=True)) * h.scale
            if seen.numel() == 0:
                continue
            size = within_it.eps / 2 * (64 + 16 * float((q.abs() @ k.abs().mT).max()) * h.scale)
            lost = own.smallest_subnormal + within_it.tiny * 64 * len(seen)
            dropped = weights * grown
            terms = [
                (dropped @ v, dropped @ v.abs(), dropped @ v.abs()),
                (slopes @ k, slopes.abs() @ k.abs(), spread @ k.abs()),
                (slopes.mT @ q, slopes.abs().mT @ q.abs(), spread.mT @ q.abs()),
                (dropped.mT @ back, dropped.mT @ back.abs(), dropped.mT @ back.abs()),
            ]
            for mine, (wanted, absolute, least) in zip(found, terms, strict=True):
                limit = factor * absolute + size * least + own.eps / 2 * wanted.abs() * 1.01 + lost
                within(mine[where].transpose(0, 1), wanted, limit)


def visible(length: int, how: How) -> Tensor:
    """Which keys a query sees, bool (L, L)."""
    place = torch.arange(length)
    ahead = place - place[:, None]
    near = torch.ones_like(ahead, dtype=torch.bool) if how.window is None else ahead.abs() <= how.window
    return near & (ahead <= 0) if how.causal else near


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# --- numbers -------------------------------------------------------------------------------------------------------


@every_view
@every_dtype
def test_every_length(kernels, dtype, view):
    Packed(ENDS_OF_LANES, 2, 8, dtype, causal=view[0], window=view[1]).check(kernels)


@every_dtype
@pytest.mark.parametrize("width", [1, 7, 16, 20, 32, 64, 100])
def test_every_width(kernels, dtype, width):
    Packed([1, 13, 73, 66], 3, width, dtype).check(kernels)


@every_view
@every_dtype
def test_several_blocks(kernels, dtype, view):
    Packed([301], 1, 64, dtype, causal=view[0], window=view[1]).check(kernels)
    Packed([200], 1, 16, dtype, causal=view[0], window=view[1] and 80).check(kernels)  # in which only some blocks meet


@every_dtype
def test_scores_of_hundreds_and_a_scale_of_one_s_own(kernels, dtype):
    """Softmaxes of nothing but zeros and a one."""
    Packed([40, 9], 2, 32, dtype, size=8.0, scale=0.3).check(kernels)


def test_bf16_is_as_exact_as_torch_s(kernels):
    """Errors against the definition, of output and gradients, by their root mean squares."""
    packed = Packed([73], 4, 64, torch.bfloat16)
    leaves = [x.detach().requires_grad_() for x in packed.qkv]
    theirs = [F.scaled_dot_product_attention(*leaves)]
    theirs += torch.autograd.grad(theirs[0], leaves, packed.upstream.transpose(0, 1).unsqueeze(0))
    leaves = [x.detach().double().requires_grad_() for x in packed.qkv]
    right = [F.scaled_dot_product_attention(*leaves)]
    right += torch.autograd.grad(right[0], leaves, packed.upstream.double().transpose(0, 1).unsqueeze(0))
    for mine, other, exact in zip(packed.through(kernels), theirs, right, strict=True):
        ours = (mine.transpose(0, 1).double() - exact[0]).norm()
        assert ours <= 2 * (other.double() - exact).norm()


@every_dtype
def test_threads_change_no_bit(kernels, dtype):
    packed, outcomes = Packed([5, 128, 1, 64], 3, 16, dtype, dropout=0.1, seed=2**62 + 5), []
    for threads in (1, 2, 3, 16):  # the last: more threads than sequences and heads
        torch.set_num_threads(threads)
        outcomes.append(packed.through(kernels))
    torch.set_num_threads(1)
    assert all(same(outcomes[0], other) for other in outcomes[1:])


@every_dtype
def test_what_else_is_in_the_batch_changes_no_bit(kernels, dtype):
    packed = Packed([70, 5, 128], 3, 20, dtype)
    whole = packed.through(kernels)
    alone = Packed([5], 3, 20, dtype)
    alone.qkv = tuple(x[:, :, 70:75] for x in packed.qkv)
    alone.upstream = packed.upstream[70:75]
    assert same([x[70:75] for x in whole], alone.through(kernels))


@every_dtype
def test_a_nan_stays_in_its_sequence_and_head(kernels, dtype):
    for which in range(3):
        packed = Packed([6, 20, 3], 2, 16, dtype)
        packed.qkv[which][0, 1, 10] = torch.nan
        for number, x in enumerate(packed.through(kernels)):
            if (which, number) != (2, 3):  # gradients of values are of weights alone
                assert x[6:26, 1].isnan().any()
            assert x[:6].isfinite().all() and x[26:].isfinite().all() and x[:, 0].isfinite().all()


def test_a_sequence_without_tokens_is_none(kernels):
    packed = Packed([0, 4, 0, 0, 9, 0], 2, 8, torch.float32)
    packed.check(kernels)


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


@every_dtype
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
