"""The kernels of a CPU: csrc/*.cpp in a shared library, built on first use."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from distil.errors import ConfigError
from distil.kernels import build
from distil.kernels.contract import statistics_dtype
from distil.kernels.native import TYPES, Attention, Cosines, Dropout, NativeKernels, Rows

QKV = tuple[Tensor, Tensor, Tensor]  # queries, keys and values of packed sequences, each (1, A, N, d), last stride 1


@dataclass(frozen=True)
class How:
    """What queries of packed sequences see, and what of their weights is dropped."""

    ends_B1: Tensor  # int32: sequence b begins at token ends[b] and ends before ends[b + 1]
    scale: float  # of scores, above 0
    causal: bool
    window: int | None  # how many tokens to each side are seen
    dropout: float  # below 1
    seed: int  # of dropout, 64 bits


class CpuKernels(NativeKernels):
    """Threads take rows, vectors walk along them. ``library`` is one that ``build.cpu_library`` has made."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.add_bfloat16.restype = library.use_huge_pages.restype = None

    def _run(self, kernel: str, arguments: Rows | Cosines | Dropout | Attention, of: Tensor) -> None:
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
        out = torch.empty_like(x)
        addresses = [ctypes.c_void_p(tensor.data_ptr()) for tensor in (out, x)]
        keys, least, scale = _chance(p, seed)
        self._run("dropout", Dropout(*addresses, x.numel(), keys, least, scale, torch.get_num_threads()), x)
        return out

    def attention(self, qkv: QKV, how: How) -> tuple[Tensor, Tensor]:
        """Attention within packed sequences, (N, A, d), and what its gradients need: a number a query and head.

        That is the logarithm to base 2 of the sum that a softmax divides by, (A, N).
        """
        _, heads, tokens, width = qkv[0].shape
        out = qkv[0].new_empty(tokens, heads, width)
        logs = out.new_empty(heads, tokens, dtype=statistics_dtype(out.dtype))
        self._attend("attention", [*qkv], [out], logs, how)
        return out, logs

    def attention_gradients(self, qkv: QKV, upstream_NAd: Tensor, logs_AN: Tensor, how: How) -> list[Tensor]:
        """Gradients of queries, keys and values, each (N, A, d), from that of ``attention``'s output."""
        gradients = [torch.empty_like(upstream_NAd) for _ in range(3)]
        self._attend("attention_gradients", [*qkv, upstream_NAd.transpose(0, 1).unsqueeze(0)], gradients, logs_AN, how)
        return gradients

    def _attend(self, kernel: str, given: list[Tensor], out: list[Tensor], logs: Tensor, how: How) -> None:
        _, heads, tokens, width = given[0].shape
        arguments = Attention(logs=logs.data_ptr(), ends=how.ends_B1.data_ptr(), sequences=len(how.ends_B1) - 1)
        for i, tensor in enumerate(given):
            assert tensor.shape == given[0].shape and tensor.stride(3) == 1
            getattr(arguments, "in")[i], arguments.strides[i][:] = tensor.data_ptr(), tensor.stride()[1:3]
        arguments.out[: len(out)] = [tensor.data_ptr() for tensor in out]
        arguments.heads, arguments.tokens, arguments.width = heads, tokens, width
        arguments.window = -1 if how.window is None else how.window
        arguments.scale, arguments.causal, arguments.threads = how.scale, how.causal, torch.get_num_threads()
        arguments.keys, arguments.least, arguments.kept_scale = _chance(how.dropout, how.seed)
        self._run(kernel, arguments, given[0])


def _chance(p: float, seed: int) -> tuple[ctypes.Array, int, float]:
    """What kernels take of dropout: two halves of a seed, the least bits of what stays, and its factor."""
    least = min(round(p * 2**32), 2**32 - 1)
    return (ctypes.c_uint * 2)(seed & 0xFFFFFFFF, seed >> 32), least, 1 / (1 - least / 2**32)


@cache
def kernels() -> CpuKernels:
    """The kernels of this machine; ConfigError where they cannot be built."""
    path = build.cpu_library()
    try:
        return CpuKernels(ctypes.CDLL(str(path)))
    except OSError as error:
        raise ConfigError(f"the loss kernels cannot be loaded: {error}; delete {path} or {build.FALL_BACK}") from None
