"""Attention over packed sequences on a CPU: the kernel that pads nothing beside torch's own on padded ones.

    OMP_NUM_THREADS=1 python benchmarks/attention.py                one thread; leave the variable out for all of them

Times are medians of ways that take turns in one process, of a forward and of a backward pass through queries, keys and
values as projections leave them. "padded" is torch's scaled_dot_product_attention as packed models call it where there
is no kernel, padding included; "written out" does as much in fp32 by matrix products, softmax and dropout by vectors.
GFLOP/s count products of real tokens: two in the forward pass, five in the backward pass.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import nullcontext
from datetime import date
from types import SimpleNamespace

import torch
from measure import Step, machine, seconds
from torch import Tensor

from distil.kernels import cpu
from distil.kernels.dropout import dropout as vectors_dropout
from distil.kernels.host import HostFunctions
from distil.kernels.packing import PackedWeights
from distil.models.packed import Padding, packed_attention

# lengths of sequences, heads, width of one
SETTINGS = [([128] * 8, 12, 64), (list(range(66, 81)), 12, 64), ([512] * 2, 12, 64), ([128] * 8, 12, 32)]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
WAYS = ("kernel", "padded", "written out")
Attend = Callable[[list[Tensor]], Tensor]


def ways(padding: Padding, share: float) -> dict[str, Attend]:
    """Functions of queries, keys and values, (1, A, N, d) each, to (1, N, A, d)."""
    kernels = cpu.kernels()

    def packed(qkv: list[Tensor], own: bool) -> Tensor:
        with HostFunctions(PackedWeights(), kernels) if own else nullcontext():
            return packed_attention(SimpleNamespace(is_causal=False), *qkv, None, padding=padding, dropout=share)[0]

    def written_out(qkv: list[Tensor]) -> Tensor:
        query, key, value = (padding.pad(x).float() for x in qkv)
        scores = query * query.shape[-1] ** -0.5 @ key.mT
        mask = padding.mask(None)
        weights = (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1)
        return padding.unpad((vectors_dropout(weights, share, kernels) @ value).to(qkv[0].dtype))

    return {"kernel": lambda x: packed(x, True), "padded": lambda x: packed(x, False), "written out": written_out}


def inputs(lengths: list[int], heads: int, width: int, dtype: torch.dtype) -> tuple[list[Tensor], Padding]:
    """Queries, keys and values as leaves, and where their sequences lie."""
    draw = torch.Generator().manual_seed(0)
    shape = (1, sum(lengths), heads, width)
    qkv = [torch.randn(shape, generator=draw).to(dtype).transpose(1, 2).requires_grad_() for _ in range(3)]
    ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
    return qkv, Padding(ends, max(lengths), torch.cat([torch.arange(length) for length in lengths]))


def times(lengths: list[int], heads: int, width: int, dtype: torch.dtype, share: float, repeats: int) -> dict:
    """Seconds of each way's forward and backward pass, by (way, pass)."""
    qkv, padding = inputs(lengths, heads, width, dtype)
    upstream, steps = torch.randn(1, sum(lengths), heads, width).to(dtype), {}

    def passes(attend: Attend) -> tuple[Step, Step]:
        out = attend(qkv)
        return lambda: attend(qkv), lambda: torch.autograd.grad(out, qkv, upstream, retain_graph=True)

    for way, attend in ways(padding, share).items():
        steps[way, "forward"], steps[way, "backward"] = passes(attend)
    return seconds(steps, repeats, torch.device("cpu"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    print(f"{date.today()}; {machine(torch.device('cpu'))}; medians of {options.repeats} turns, ms.\n")
    both = [f"{name} {way}" for name in ("forward", "backward") for way in (*WAYS, "GFLOP/s", "x faster")]
    print("| tokens | heads | numbers | dropout |", " | ".join(both), "|")
    print("|---" * (4 + len(both)) + "|")
    for lengths, heads, width in SETTINGS:
        operations = 2 * heads * width * sum(length**2 for length in lengths)  # of one product
        for name, dtype in DTYPES.items():
            for share in (0.0, 0.1):
                taken = times(lengths, heads, width, dtype, share, options.repeats)
                cells = []
                for way, products in (("forward", 2), ("backward", 5)):
                    mine, *others = (taken[which, way] for which in WAYS)
                    cells += [f"{one * 1e3:.2f}" for one in (mine, *others)]
                    cells += [f"{products * operations / mine / 1e9:.0f}", f"{min(others) / mine:.1f}"]
                spread = f"{len(lengths)} x {lengths[0]}" + (f"-{lengths[-1]}" if lengths[-1] != lengths[0] else "")
                print(f"| {spread} | {heads} x {width} | {name} | {share} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
