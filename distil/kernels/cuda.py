"""The kernels of a GPU: csrc/loss.cu, compiled for the device that is there, launched through CUDA's driver."""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from distil.errors import ConfigError
from distil.kernels import build
from distil.kernels.native import Cosines, NativeKernels, Rows

NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16", torch.float64: "float64"}
# Threads of a block, the most that __launch_bounds__ in csrc/loss.cu allow.
ROW_THREADS, KEPT_ROW_THREADS, COSINE_THREADS, WARP = 512, 1024, 128, 32
WORD = 16  # bytes that a thread reads at once
MAX_DYNAMIC_SHARED_SIZE_BYTES = 8  # CUfunction_attribute in cuda.h


class Launcher(Protocol):
    """Where blocks of threads run; the tests have one that runs them on a CPU."""

    shared_bytes: int  # shared memory that a block can have

    def launch(self, kernel: str, blocks: int, threads: int, shared: int, arguments: ctypes.Structure) -> None:
        """Run a kernel, whose one parameter is the structure, on the current stream."""


class CudaKernels(NativeKernels):
    """A block takes a row of logits; a warp takes a pair of hidden rows."""

    def __init__(self, launcher: Launcher, keep_rows: bool = True) -> None:
        self._launcher, self._keep_rows = launcher, keep_rows

    def _run(self, kernel: str, arguments: Rows | Cosines, of: Tensor) -> None:
        if arguments.rows == 0:
            return
        name = NAMES[of.dtype]
        if isinstance(arguments, Cosines):
            blocks = -(-arguments.rows // (COSINE_THREADS // WARP))
            self._launcher.launch(f"{kernel}_{name}", blocks, COSINE_THREADS, 0, arguments)
            return
        assert not of.data_ptr() % WORD and not (arguments.teacher or 0) % WORD
        words = -(-arguments.vocabulary * of.itemsize // WORD) + 1
        kept = words * WORD * (1 if arguments.teacher is None else 2)
        # A row that is held on chip is read once; it pays where it is read a second time.
        if self._keep_rows and arguments.with_gradient and kept <= self._launcher.shared_bytes and of.itemsize < 8:
            self._launcher.launch(f"{kernel}_kept_{name}", arguments.rows, KEPT_ROW_THREADS, kept, arguments)
        else:
            self._launcher.launch(f"{kernel}_{name}", arguments.rows, ROW_THREADS, 0, arguments)

    def _columns(self, vocabulary: int, like: Tensor) -> None:
        return None  # sums over rows by torch: blocks do not wait for each other

    def cosines(self, student_NH: Tensor, teacher_NH: Tensor) -> tuple[Tensor, Tensor]:
        return super().cosines(_aligned(student_NH), _aligned(teacher_NH))

    def cosine_gradients(self, student_NH: Tensor, teacher_NH: Tensor, factors_N2: Tensor, scale: Tensor) -> Tensor:
        return super().cosine_gradients(_aligned(student_NH), _aligned(teacher_NH), factors_N2, scale)


def _aligned(tensor: Tensor) -> Tensor:
    return tensor.clone() if tensor.data_ptr() % WORD else tensor


class KernelError(RuntimeError):
    """CUDA's driver refuses a module or a launch."""


class DriverLauncher:
    """CUDA's driver, with the module loaded into torch's own context of a device."""

    def __init__(self, module: Path, device: torch.device) -> None:
        try:
            self._driver, self._device = ctypes.CDLL("libcuda.so.1"), device
        except OSError as error:
            raise ConfigError(f"no CUDA driver for the loss kernels: {error}; {build.FALL_BACK}") from None
        self._module = ctypes.c_void_p()
        self._functions: dict[str, ctypes.c_void_p] = {}
        properties = torch.cuda.get_device_properties(device)
        self.shared_bytes = properties.shared_memory_per_block_optin - 2 * 1024  # the kernel's own static memory
        with torch.cuda.device(device):
            torch.cuda.current_stream().synchronize()  # so that torch's context is there and current
            self._check(self._driver.cuModuleLoadData(ctypes.byref(self._module), module.read_bytes()))

    def launch(self, kernel: str, blocks: int, threads: int, shared: int, arguments: ctypes.Structure) -> None:
        with torch.cuda.device(self._device):
            context = ctypes.c_void_p()
            self._driver.cuCtxGetCurrent(ctypes.byref(context))
            if not context.value:  # a thread that has not used CUDA yet
                torch.cuda.synchronize(self._device)
            function = self._functions.get(kernel) or self._load(kernel)
            parameters = (ctypes.c_void_p * 1)(ctypes.addressof(arguments))
            stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
            self._check(
                self._driver.cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared, stream, parameters, None)
            )

    def _load(self, kernel: str) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        self._check(self._driver.cuModuleGetFunction(ctypes.byref(function), self._module, kernel.encode()))
        if "_kept_" in kernel:
            self._check(self._driver.cuFuncSetAttribute(function, MAX_DYNAMIC_SHARED_SIZE_BYTES, self.shared_bytes))
        self._functions[kernel] = function
        return function

    def _check(self, failed: int) -> None:
        if failed:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(failed, ctypes.byref(text))
            message = f"the loss kernels on {self._device}: {(text.value or b'error').decode()} ({failed})"
            raise KernelError(f"{message}; {build.FALL_BACK}")


@cache
def kernels(device: torch.device) -> CudaKernels:
    """The kernels of a GPU; ConfigError where they cannot be built."""
    return CudaKernels(DriverLauncher(build.cuda_module(build.arch_of(device)), device))
