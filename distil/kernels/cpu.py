"""The kernels of a CPU: csrc/*.cpp in a shared library, built on first use."""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor

from distil.errors import ConfigError
from distil.kernels import build
from distil.kernels.native import TYPES, Cosines, Dropout, NativeKernels, Rows


class CpuKernels(NativeKernels):
    """Threads take rows, vectors walk along them. ``library`` is one that ``build.cpu_library`` has made."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.add_bfloat16.restype = library.use_huge_pages.restype = None

    def _run(self, kernel: str, arguments: Rows | Cosines | Dropout, of: Tensor) -> None:
        failed = self._library[kernel](ctypes.byref(arguments), TYPES[of.dtype])
        assert not failed, f"{kernel} has no code for {of.dtype}"

    def _columns(self, vocabulary: int, like: Tensor) -> Tensor:
        return like.new_empty(torch.get_num_threads(), 2, vocabulary)

    def empty(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        memory = like.new_empty(shape)
        self._library.use_huge_pages(ctypes.c_void_p(memory.data_ptr()), ctypes.c_longlong(memory.nbytes))
        return memory

    def add_(self, sum_fp32: Tensor, part: Tensor) -> None:
        if part.dtype != torch.bfloat16:
            return super().add_(sum_fp32, part)
        assert sum_fp32.is_contiguous() and part.is_contiguous()
        addresses = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (sum_fp32, part)]
        self._library.add_bfloat16(*addresses, ctypes.c_longlong(part.numel()), torch.get_num_threads())

    def scaled(self, tensor: Tensor, factor: Tensor, dtype: torch.dtype) -> Tensor:
        if factor.item() == 1.0 and tensor.dtype == dtype:
            return tensor
        if tensor.dtype not in (torch.float32, torch.bfloat16) or dtype == torch.float64:
            return super().scaled(tensor, factor, dtype)
        tensor = tensor.contiguous()
        result = self.empty(tensor.shape, tensor.new_empty(0, dtype=dtype))
        addresses = [ctypes.c_void_p(one.data_ptr()) for one in (result, tensor)]
        types = TYPES[dtype], TYPES[tensor.dtype]
        size = ctypes.c_longlong(tensor.numel())
        failed = self._library.scaled(*addresses, *types, ctypes.c_double(factor.item()), size, torch.get_num_threads())
        assert not failed
        return result

    def dropout(self, x: Tensor, p: float, seed: int) -> Tensor:
        """``x``, contiguous, with each number 0 with probability ``p`` and else times 1 / (1 - p).

        Which ones is a function of the seed, 64 bits, and of places alone, so a gradient takes the same way.
        """
        out, keys = torch.empty_like(x), (ctypes.c_uint * 2)(seed & 0xFFFFFFFF, seed >> 32)
        addresses = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (out, x)]
        least = min(round(p * 2**32), 2**32 - 1)
        arguments = Dropout(*addresses, x.numel(), keys, least, 1 / (1 - least / 2**32), torch.get_num_threads())
        self._run("dropout", arguments, x)
        return out


@cache
def kernels() -> CpuKernels:
    """The kernels of this machine; ConfigError where they cannot be built."""
    path = build.cpu_library()
    try:
        return CpuKernels(ctypes.CDLL(str(path)))
    except OSError as error:
        raise ConfigError(f"the loss kernels cannot be loaded: {error}; delete {path} or {build.FALL_BACK}") from None
