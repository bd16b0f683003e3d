"""Which kernel attends to packed sequences, and how it is called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from attending import BRAIN, FULL, HALF, LENGTHS, Calls, inputs

from distil.kernels import build, cpu
from distil.kernels.host import HostFunctions
from distil.kernels.packing import PackedWeights
from distil.models import attention
from distil.models.attention import AMPERE, VOLTA, kernel_for
from distil.models.packed import packed_attention

pytestmark = pytest.mark.usefixtures("one_thread")

PASCAL, TURING, HOPPER, BLACKWELL = (6, 1), (7, 5), (9, 0), (12, 0)

# --- the table -----------------------------------------------------------------------------------------------------

ALL = [
    dict(zip(("capability", "dtype", "head", "dropout", "window"), case, strict=True))
    for case in product(
        (None, PASCAL, VOLTA, TURING, AMPERE, HOPPER, BLACKWELL), (HALF, BRAIN, FULL, torch.float64),
        (4, 12, 32, 64, 192, 256), (0.0, 0.1), (None, 63),
    )
]  # fmt: skip


def chosen(capability: tuple[int, int] | None, dtype: torch.dtype, **case: object) -> str | None:
    return kernel_for(capability, dtype, **{"head": 64, "dropout": 0.0, "window": None} | case)


def cases(**which: object) -> Iterator[dict]:
    """All cases with these properties, or that a property's function accepts."""
    for case in ALL:
        if all(want(case[name]) if callable(want) else case[name] == want for name, want in which.items()):
            yield case


def kernels(**which: object) -> set[str | None]:
    found = {kernel_for(**case) for case in cases(**which)}
    assert found, "no such case"
    return found


def test_ampere_and_newer_never_pad_in_16_bits():
    usual = lambda head: head % 8 == 0 and head <= 192
    assert kernels(capability=lambda c: c and c >= AMPERE, dtype=lambda d: d in (HALF, BRAIN), head=usual) == {"flash"}


def test_volta_pads_under_dropout_and_in_windows_alone():
    usual = {"capability": lambda c: c in (VOLTA, TURING), "head": lambda head: head % 8 == 0}
    for dtype in (HALF, FULL):
        assert kernels(**usual, dtype=dtype, dropout=0.0, window=None) == {"efficient"}
        assert kernels(**usual, dtype=dtype, dropout=0.1) == kernels(**usual, dtype=dtype, window=63) == {None}
    assert kernels(**usual, dtype=BRAIN) == {None}


def test_fp32_and_wide_heads_have_the_other_kernel_on_newer_ones_too():
    newer = lambda c: c and c >= AMPERE
    assert kernels(capability=newer, dtype=FULL, head=64, dropout=0.0, window=None) == {"efficient"}
    assert kernels(capability=newer, dtype=BRAIN, head=256, dropout=0.0, window=None) == {"efficient"}
    assert kernels(capability=newer, dtype=FULL, dropout=0.1) == kernels(capability=newer, dtype=FULL, window=63)
    assert kernels(capability=newer, dtype=FULL, dropout=0.1) == {None}


def test_where_there_is_no_kernel():
    assert kernels(capability=lambda c: c in (None, PASCAL)) == {None}
    assert kernels(head=lambda head: head % 8) == kernels(dtype=torch.float64) == {None}


def test_the_memory_efficient_kernel_is_never_asked_for_dropout():
    """Its backward pass would draw another mask than its forward pass (distil.models.attention)."""
    assert "efficient" not in kernels(dropout=0.1) and "efficient" in kernels(dropout=0.0)


# --- the calls, on tensors without data ----------------------------------------------------------------------------


@contextmanager
def gpu_of(capability: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Calls]:
    """As if tensors without data lay on such a GPU."""
    with monkeypatch.context() as patch, Calls() as calls:
        patch.setattr(attention, "capability_of", lambda device: capability)
        yield calls


@pytest.mark.parametrize(
    ("capability", "dtype", "dropout", "window", "called"),
    [
        (VOLTA, HALF, 0.0, None, "efficient"),
        (VOLTA, FULL, 0.0, None, "efficient"),
        (VOLTA, HALF, 0.1, None, None),
        (VOLTA, HALF, 0.0, 9, None),
        (AMPERE, HALF, 0.1, None, "flash"),
        (HOPPER, BRAIN, 0.0, None, "flash"),
        (HOPPER, BRAIN, 0.1, 9, "flash"),
    ],
)
@pytest.mark.parametrize("causal", [False, True])
def test_shapes_of_outputs_and_gradients(capability, dtype, dropout, window, called, causal, monkeypatch):
    if causal and window is not None:
        pytest.skip("no family has causal layers with a window")
    qkv, where = inputs(dtype, "meta")
    with gpu_of(capability, monkeypatch) as calls:
        out, _ = packed_attention(
            SimpleNamespace(is_causal=causal), *qkv, None, padding=where, scaling=64**-0.5, dropout=dropout,
            sliding_window=window,
        )  # fmt: skip
        assert out.shape == (1, sum(LENGTHS), 12, 64) and out.dtype == dtype
        out.sum().backward()
    assert all(x.grad.shape == x.shape and x.grad.dtype == dtype for x in qkv)
    attending = {name for name in calls.seen if name.startswith(("_flash_attention", "_efficient_attention"))}
    copies = {"index_copy", "index_select", "clone"} & calls.seen.keys()
    if called is None:
        assert attending == set() and "index_copy" in copies
        return
    assert attending == {f"_{called}_attention_forward", f"_{called}_attention_backward"} and copies == set()
    for name in attending:
        given = calls.seen[name]
        assert {given[longest] for longest in given if longest.startswith("max_")} == {128}
        assert given["dropout_p"] == dropout
        if called == "efficient":
            assert given["custom_mask_type"] == causal  # 1: from the top left, as in sdp_utils_cpp.h
        else:
            sides = (-1, 0) if causal else (-1, -1) if window is None else (8, 8)
            assert (given["is_causal"], given["window_size_left"], given["window_size_right"]) == (causal, *sides)
    forward = calls.seen[f"_{called}_attention_forward"]
    assert [given is where.cu_seqlens_B1 for name, given in forward.items() if name.startswith(("cu_", "cum_"))] == [
        True,
        True,
    ]
    assert called == "flash" or forward["compute_log_sumexp"]


def test_a_scaling_of_a_model_s_own_is_handed_on(monkeypatch):
    for capability in (VOLTA, AMPERE):
        qkv, where = inputs(HALF, "meta")
        with gpu_of(capability, monkeypatch) as calls, torch.no_grad():
            packed_attention(SimpleNamespace(), *qkv, None, padding=where, scaling=0.3)
        assert [given["scale"] for name, given in calls.seen.items() if "attention" in name] == [0.3]


def test_a_cpu_has_none_of_them():
    assert attention.capability_of(torch.device("cpu")) is None
    qkv, where = inputs(FULL, "cpu")
    with Calls() as calls:
        packed_attention(SimpleNamespace(), *qkv, None, padding=where)
    assert "index_copy" in calls.seen


@pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")
def test_a_cpu_s_own_is_called_within_host_functions_alone():
    qkv, where = inputs(FULL, "cpu")
    outs = []
    for on in (False, True, False):
        with HostFunctions(PackedWeights(), cpu.kernels()) if on else nullcontext(), Calls() as calls:
            outs.append(packed_attention(SimpleNamespace(), *qkv, None, padding=where)[0])
        assert ("index_copy" in calls.seen) is not on
    torch.testing.assert_close(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])
    with HostFunctions(PackedWeights(), cpu.kernels()), Calls() as calls:  # scores of which none is the largest
        packed_attention(SimpleNamespace(), *qkv, None, padding=where, scaling=-1.0)
    assert "index_copy" in calls.seen
