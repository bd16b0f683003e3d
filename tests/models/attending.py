"""Packed inputs of attention, and what is called on them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from distil.models.packed import Padding

HALF, BRAIN, FULL = torch.float16, torch.bfloat16, torch.float32
LENGTHS = [5, 128, 1, 64]


class Calls(TorchDispatchMode):
    """Notes the operators that are called, with their arguments by name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, dict[str, object]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        names = [argument.name for argument in func._schema.arguments]
        self.seen[func.overloadpacket.__name__] = dict(zip(names, args, strict=False)) | (kwargs or {})
        return func(*args, **(kwargs or {}))


def inputs(dtype: torch.dtype, device: str, heads: int = 12, dim: int = 64) -> tuple[list[Tensor], Padding]:
    """Queries, keys and values (1, A, N, d) as a projection leaves them, and where their sequences lie."""
    draw = torch.Generator().manual_seed(0)
    shape = (1, sum(LENGTHS), heads, dim)
    qkv = [torch.randn(shape, generator=draw).to(device, dtype).transpose(1, 2).requires_grad_() for _ in range(3)]
    return qkv, padding(LENGTHS, device)


def padding(lengths: list[int], device: str) -> Padding:
    ends = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32).to(device)
    return Padding(ends, max(lengths), torch.cat([torch.arange(n) for n in lengths]).to(device))
