"""Attention over packed sequences by kernels that take their ends, so that nothing is padded; and which one there is.

| GPU | numbers | attention dropout | sliding window | kernel |
|---|---|---|---|---|
| Ampere and newer | 16 bits | any | any | FlashAttention |
| Volta and newer | fp16, fp32; bf16 from Ampere on | none | none | memory-efficient |

The rest is padded, but for CPUs with a kernel of our own in use (``distil.kernels.attention``). torch 2.13's public
ways to its kernels lack what is needed: ``varlen_attn`` sets dropout to 0, and jagged nested tensors know no window. So
its operators are called, whose gradients are torch's own.

The memory-efficient kernel is not asked for dropout. Given ends of sequences, its forward pass begins the random
numbers of every head and sequence at one place, its backward pass at a place of each one's own (attention.cu sets
``max_seqlen_k`` to 0 in one and not in the other; kernel_forward.h and kernel_backward.h multiply by it): gradients
would be those of another mask, without an error. Jagged nested tensors end in the same call.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Kernel = Literal["flash", "efficient"]
Capability = tuple[int, int]
VOLTA, AMPERE = (7, 0), (8, 0)
# Of a head: vectors of 16 bytes are loaded; and the backward pass of wider ones needs some GPUs' larger shared memory.
HEAD_MULTIPLE, FLASH_WIDEST = 8, 192


def kernel_for(
    capability: Capability | None, dtype: torch.dtype, *, head: int, dropout: float, window: int | None
) -> Kernel | None:
    """The kernel that needs no padding, None where there is none; a pure function.

    ``capability`` is an NVIDIA GPU's, None for any other device; ``head`` the dimension of one.
    """
    if capability is None or head % HEAD_MULTIPLE:
        return None
    sixteen = {torch.float16, torch.bfloat16} if capability >= AMPERE else {torch.float16}
    if capability >= AMPERE and dtype in sixteen and head <= FLASH_WIDEST:
        return "flash"
    if capability >= VOLTA and dtype in sixteen | {torch.float32} and dropout == 0 and window is None:
        return "efficient"
    return None


def capability_of(device: torch.device) -> Capability | None:
    """An NVIDIA GPU's compute capability, None for any other device; without waiting for it."""
    if device.type != "cuda" or torch.version.hip is not None:
        return None
    return torch.cuda.get_device_capability(device)


def attend(
    kernel: Kernel, query: Tensor, key: Tensor, value: Tensor, ends_B1: Tensor, longest: int, *,
    causal: bool, window: int | None, dropout: float, scaling: float | None,
) -> Tensor:  # fmt: skip
    """Attention within each packed sequence; inputs (1, A, N, d), output (1, N, A, d).

    Sequence b begins at row ``ends_B1[b]`` (int32, on the device) and is at most ``longest`` tokens long.
    """
    q, k, v = (x.transpose(1, 2) for x in (query, key, value))
    if kernel == "efficient":
        if scaling == query.shape[-1] ** -0.5:
            scaling = None  # its default; torch 2.13 cannot trace the backward pass of any that is named
        mask, for_backward = int(causal), True
        return torch.ops.aten._efficient_attention_forward.default(
            q, k, v, None, ends_B1, ends_B1, longest, longest, 0.0, mask, for_backward, scale=scaling
        )[0]  # fmt: skip
    reach = -1 if window is None else window
    out_NAd = torch.ops.aten._flash_attention_forward.default(
        q.squeeze(0), k.squeeze(0), v.squeeze(0), ends_B1, ends_B1, longest, longest, dropout, causal, False,
        scale=scaling, window_size_left=reach, window_size_right=0 if causal else reach,
    )[0]  # fmt: skip
    return out_NAd.unsqueeze(0)
