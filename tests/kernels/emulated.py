"""csrc/loss.cu on a CPU, through the same Python code that launches it on a GPU: see cuda_on_cpu.cpp."""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

from distil.kernels import build
from distil.kernels.cuda import CudaKernels


class EmulatedLauncher:
    """Blocks run one after the other; ``threads`` fewer than on a GPU, unless None, as each costs a stack's change."""

    def __init__(self, shared_bytes: int = 99 * 1024, threads: int | None = 64) -> None:
        self.shared_bytes, self._threads = shared_bytes, threads
        self.launched: list[str] = []

    def launch(self, kernel: str, blocks: int, threads: int, shared: int, arguments: ctypes.Structure) -> None:
        assert shared <= self.shared_bytes
        self.launched.append(kernel)
        if self._threads is not None and kernel.startswith("loss_rows"):
            threads = self._threads  # any number of warps does a row
        waits = _library().launch(kernel.encode(), blocks, threads, shared, ctypes.byref(arguments))
        assert waits >= 0, f"no kernel {kernel}"


@cache
def _library() -> ctypes.CDLL:
    if build.compiler() is None:
        pytest.skip("no C++ compiler")
    source, folder = Path(__file__).with_name("cuda_on_cpu.cpp"), Path(tempfile.mkdtemp(prefix="cuda-on-cpu-"))
    command = [*build.compiler(), "-std=c++17", "-O1", "-shared", "-fPIC", "-Wno-psabi", "-I", str(build.SOURCES)]
    subprocess.run([*command, str(source), "-o", str(folder / "loss.so")], check=True)
    library = ctypes.CDLL(str(folder / "loss.so"))
    library.launch.restype = ctypes.c_longlong
    return library


def emulated_kernels(**options: int | None) -> CudaKernels:
    """``CudaKernels`` on a CPU."""
    return CudaKernels(EmulatedLauncher(**options))
