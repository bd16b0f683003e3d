"""What a CPU computes otherwise than torch would by itself: within ``HostFunctions``, for any model's own code.

Linear layers multiply weights laid out once (``packing``), dropout is drawn by vectors (``dropout``), and whoever
attends to packed sequences finds a kernel for it (``attention.in_use``).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from distil.kernels import attention, packing
from distil.kernels.cpu import CpuKernels
from distil.kernels.dropout import dropout
from distil.kernels.native import TYPES
from distil.kernels.packing import PackedWeights
from distil.kernels.paths import path_for

_LINEAR, _DROPOUT = torch._C._nn.linear, F.dropout  # as they are before DeepSpeed puts its own in their place


def host_functions(weights: PackedWeights, device: torch.device) -> AbstractContextManager:
    """HostFunctions on a CPU; elsewhere, and where the user wants the loss without compiled kernels, nothing."""
    kernels = path_for(device).kernels
    return HostFunctions(weights, kernels) if isinstance(kernels, CpuKernels) else nullcontext()


class HostFunctions(TorchFunctionMode):
    """While it is on, torch's ``linear`` and ``dropout`` are ours wherever ours know the arguments."""

    def __init__(self, weights: PackedWeights, kernels: CpuKernels) -> None:
        super().__init__()
        self._own, self._kernels = weights, kernels

    def __enter__(self) -> HostFunctions:
        self._before = packing.in_use.set(self._own), attention.in_use.set(self._kernels)
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        packing.in_use.reset(self._before[0])
        attention.in_use.reset(self._before[1])

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:  # fmt: skip
        if function is _LINEAR and not kwargs and self._own.takes(*args[:2]):
            return self._own.linear(*args, *[None] * (3 - len(args)))
        if function is _DROPOUT:
            return self._dropout(*args, **kwargs or {})
        return function(*args, **kwargs or {})

    def _dropout(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if inplace or not training or not 0 <= p <= 1 or x.device.type != "cpu" or x.dtype not in TYPES:
            return _DROPOUT(x, p, training, inplace)
        return dropout(x, p, self._kernels)
