"""Fixtures of more than one test of the kernels."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator

import pytest
from emulated import emulated_kernels
from processors import flags

from distil.kernels import build
from distil.kernels.cpu import CpuKernels
from distil.kernels.paths import using

PATHS = ("reference", "torch", "kernel", "emulated GPU")


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each path of the loss in turn; of chunks, three rows each."""
    if build.compiler() is None and request.param in ("kernel", "emulated GPU"):
        pytest.skip("no C++ compiler")
    with using(emulated_kernels() if request.param == "emulated GPU" else request.param, chunk_rows=3):
        yield request.param


@pytest.fixture(scope="session", params=["x86-64", "haswell", "native"])
def march(request: pytest.FixtureRequest) -> str:
    """SSE and four lanes, AVX2 and eight, and what is here."""
    if request.param != "native" and platform.machine() != "x86_64":
        pytest.skip("no x86")
    if request.param == "haswell" and not {"avx2", "fma", "bmi2"} <= flags():
        pytest.skip("no AVX2")
    return request.param


@pytest.fixture(scope="session")
def kernels(march: str) -> CpuKernels:
    """Those of a CPU, built for such a processor."""
    return CpuKernels(ctypes.CDLL(str(build.cpu_library(march))))
