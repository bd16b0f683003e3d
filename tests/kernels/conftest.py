"""Fixtures of more than one test of the kernels."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from emulated import emulated_kernels

from distil.kernels import build
from distil.kernels.paths import using

PATHS = ("reference", "torch", "kernel", "emulated GPU")


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each path of the loss in turn; of chunks, three rows each."""
    if build.compiler() is None and request.param in ("kernel", "emulated GPU"):
        pytest.skip("no C++ compiler")
    with using(emulated_kernels() if request.param == "emulated GPU" else request.param, chunk_rows=3):
        yield request.param
