"""csrc/attention.cpp against attention's definition in float64, for short, middling and long vectors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from attended import DTYPES, Packed, same

from distil.kernels import build

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
ENDS_OF_LANES = [*range(1, 71), 127, 128, 129]  # every end that blocks of queries, strips and lanes of keys can have
VIEWS = {"all": (False, None), "past": (True, None), "window": (False, 5), "past window": (True, 3), "own": (False, 0)}
every_view = pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler"),
]


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
