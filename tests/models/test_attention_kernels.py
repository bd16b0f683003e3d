"""What attention's kernels compute and drop, against padding."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from attending import BRAIN, FULL, HALF, Calls, inputs, padding
from torch import Tensor

from distil.kernels import build, cpu
from distil.kernels.host import HostFunctions
from distil.kernels.packing import PackedWeights
from distil.models import attention
from distil.models.attention import AMPERE, kernel_for
from distil.models.packed import packed_attention

pytestmark = pytest.mark.usefixtures("one_thread")

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

# --- what dropout drops --------------------------------------------------------------------------------------------


def kept_by_dropout(device: str, dtype: torch.dtype, share: float) -> tuple[list[Tensor], Callable[[], list[Tensor]]]:
    """Which weights dropout keeps, a matrix (A, L, L) a sequence; and the same as the backward pass has it.

    Equal scores weigh all keys alike and values are rows of the identity, so outputs are the weights. The values'
    gradient is the transposed weights' product with what comes back, which is the identity's rows, too.
    """
    lengths, heads, dim = [64, 40, 64, 64], 6, 64
    tokens = sum(lengths)
    zeros = torch.zeros(1, heads, tokens, dim, device=device, dtype=dtype)
    own = torch.cat([torch.eye(dim)[:n] for n in lengths]).to(device, dtype).expand(1, heads, tokens, dim)
    value = own.clone().requires_grad_()
    out, _ = packed_attention(
        SimpleNamespace(), zeros, zeros, value, None, padding=padding(lengths, device), dropout=share
    )
    bounds = [0, *torch.tensor(lengths).cumsum(0).tolist()]

    def matrices(x_ANd: Tensor) -> list[Tensor]:
        whole = [x_ANd[:, a:b, : b - a].float().cpu() * (b - a) * (1 - share) for a, b in pairwise(bounds)]
        for matrix in whole:  # of weights 1 / length, those that are kept grown by 1 / (1 - share)
            assert (((matrix - 1).abs() < 0.02) | (matrix.abs() < 1e-3)).all()  # 16 bits keep 1 / 40 to 2^-9 of it
        return [matrix > 0.5 for matrix in whole]

    def backward() -> list[Tensor]:
        out.backward(own.transpose(1, 2))
        return [kept.transpose(1, 2) for kept in matrices(value.grad.squeeze(0))]

    return matrices(out.detach().squeeze(0).transpose(0, 1)), backward


def check_dropout(device: str, dtype: torch.dtype) -> None:
    torch.manual_seed(3)
    share = 0.1
    kept, backward = kept_by_dropout(device, dtype, share)
    rows = torch.cat([matrix.flatten() for matrix in kept])
    # A binomial count: five standard deviations, which a right share leaves once in two million seeds; this one is set.
    assert abs(rows.float().mean() - (1 - share)) < 5 * (share * (1 - share) / len(rows)) ** 0.5
    full = torch.stack([matrix for matrix in kept if matrix.shape[1] == 64]).flatten(0, 1)  # three sequences, six heads
    agree = (full.unsqueeze(0) == full.unsqueeze(1)).float().mean((2, 3))
    apart = agree[~torch.eye(len(full), dtype=torch.bool)]
    # Two masks drawn apart agree in 0.82 of their places, of 4096: 0.006 is a standard deviation; 306 pairs.
    assert ((apart - 0.82).abs() < 6 * 0.006).all(), "heads or sequences share their mask"
    for forward, back in zip(kept, backward(), strict=True):
        assert torch.equal(forward, back), "the backward pass drops other weights than the forward pass"
    again, _ = kept_by_dropout(device, dtype, share)
    assert not all(torch.equal(one, other) for one, other in zip(kept, again, strict=True))


def test_dropout_of_the_padded_way():
    check_dropout("cpu", FULL)


@pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")
@pytest.mark.parametrize("dtype", [HALF, BRAIN, FULL])
def test_dropout_on_a_cpu_s_own(dtype):
    with HostFunctions(PackedWeights(), cpu.kernels()):
        check_dropout("cpu", dtype)


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("dtype", [HALF, BRAIN, FULL])
def test_dropout_on_a_gpu(dtype):
    if dtype == BRAIN and torch.cuda.get_device_capability() < AMPERE:
        pytest.skip("this GPU has no bf16")
    check_dropout("cuda", dtype)


# --- against padding, on a GPU -------------------------------------------------------------------------------------


def run(dtype: torch.dtype, how: dict, causal: bool, kernel: bool, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Output and gradients, by the kernel that there is or by padding, on numbers that every dtype holds."""
    qkv, where = inputs(HALF, "cuda")
    qkv = [(x.detach().bfloat16().to(dtype)).requires_grad_() for x in qkv]
    with monkeypatch.context() as patch:
        if not kernel:
            patch.setattr(attention, "capability_of", lambda device: None)
        with Calls() as calls:
            out, _ = packed_attention(SimpleNamespace(is_causal=causal), *qkv, None, padding=where, **how)
        assert kernel == any(
            name in calls.seen for name in ("_flash_attention_forward", "_efficient_attention_forward")
        )
        draw = torch.Generator().manual_seed(1)
        out.backward(torch.randn(out.shape, generator=draw).bfloat16().to(out))
    return [out.detach().double(), *(x.grad.double() for x in qkv)]


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("dtype", [HALF, BRAIN, FULL])
@pytest.mark.parametrize(
    ("causal", "how"), [(False, {}), (True, {}), (False, {"scaling": 0.3}), (False, {"sliding_window": 10})]
)
def test_kernels_are_as_exact_as_padding(dtype, causal, how, monkeypatch):
    windowed = how.get("sliding_window")
    if kernel_for(torch.cuda.get_device_capability(), dtype, head=64, dropout=0.0, window=windowed) is None:
        pytest.skip("this GPU pads here")
    truth = run(torch.float64, how, causal, False, monkeypatch)
    padded = run(dtype, how, causal, False, monkeypatch)
    found = run(dtype, how, causal, True, monkeypatch)
    for name, exact, one, other in zip(("output", "q", "k", "v"), truth, padded, found, strict=True):
        # Other orders of the same sums: of one size with the padded way's error, which is taken as no less than a
        # rounding of the largest entry (a way that happens to be exact would allow none).
        allowed = max(float((one - exact).abs().max()), torch.finfo(dtype).eps * float(exact.abs().max()))
        assert float((other - exact).abs().max()) <= 2 * allowed, name
