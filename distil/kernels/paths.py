"""Which code computes the triple loss on a device, and why.

On a CPU ``kernel`` also attends, drops and multiplies by ours (``host``); the others leave that to torch.

    kernel      fused, by compiled kernels: csrc/loss.cu on a GPU, csrc/*.cpp on a CPU
    torch       the same chunks by torch operations: any device, no compiler
    reference   the definition: all logits at once

``auto`` is ``kernel`` on GPUs of NVIDIA and on CPUs under Linux, elsewhere ``torch``. On a CPU without a compiler it is
``torch`` too, with a warning. DISTIL_LOSS names another, DISTIL_LOSS_CHUNK the rows of a chunk; tests say ``using``.
"""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch

from distil.errors import ConfigError
from distil.kernels.rows import Kernels, TorchKernels

NAMES = ("auto", "kernel", "torch", "reference")
_chosen: ContextVar[tuple[str | Kernels, int | None] | None] = ContextVar("chosen", default=None)


@dataclass(frozen=True)
class Path:
    """A way to compute the loss: ``kernels`` None is the definition; ``chunk_rows`` None lets the memory decide."""

    name: str
    why: str
    kernels: Kernels | None = field(repr=False)
    chunk_rows: int | None = None

    def bound(self, code: Callable[..., Any]) -> Callable[..., Any]:
        """The fused code with these kernels and chunks."""
        return partial(code, kernels=self.kernels, chunk_rows=self.chunk_rows)


@contextmanager
def using(path: str | Kernels, chunk_rows: int | None = None) -> Iterator[None]:
    """Within it, every triple loss takes this path, a name of NAMES or kernels themselves, whatever the environment."""
    assert not isinstance(path, str) or path in NAMES, path
    token = _chosen.set((path, chunk_rows))
    try:
        yield
    finally:
        _chosen.reset(token)


def path_for(device: torch.device) -> Path:
    """The path of a device; builds kernels that are not built yet. ConfigError where they cannot be or no name fits."""
    chosen = _chosen.get()
    name, chunk_rows = _from_environment() if chosen is None else chosen
    if not isinstance(name, str):
        return Path("given", "given by the caller", name, chunk_rows)
    return _path(name, device, chunk_rows)


@cache
def _path(name: str, device: torch.device, chunk_rows: int | None) -> Path:
    why = "chosen by the user"
    if name == "auto":
        name, why = _automatic(device)
    if name == "reference":
        return Path(name, why, None)
    if name == "torch":
        return Path(name, why, TorchKernels(), chunk_rows)
    from distil.kernels import cpu, cuda  # late: `python -m distil.kernels.build` wants to be the first to import it

    if device.type == "cuda":
        return Path(name, why, cuda.kernels(device), chunk_rows)
    if device.type == "cpu":
        return Path(name, why, cpu.kernels(), chunk_rows)
    raise ConfigError(f"DISTIL_LOSS=kernel: there are none for {device.type}; leave it to auto")


def _automatic(device: torch.device) -> tuple[str, str]:
    from distil.kernels import build

    if device.type == "cuda" and torch.version.cuda:
        return "kernel", f"{torch.cuda.get_device_name(device)} ({build.arch_of(device)})"
    if device.type != "cpu" or sys.platform != "linux":
        return "torch", f"no kernels for {device.type} on {sys.platform}"
    if build.compiler() is None:
        warnings.warn("no C++ compiler: the loss takes the slower torch path; apt-get install g++", stacklevel=4)
        return "torch", "no C++ compiler"
    return "kernel", f"{shlex.join(build.compiler())}, {torch.backends.cpu.get_cpu_capability()}"


def _from_environment() -> tuple[str, int | None]:
    name, rows = os.environ.get("DISTIL_LOSS") or "auto", os.environ.get("DISTIL_LOSS_CHUNK", "")
    if name not in NAMES:
        raise ConfigError(f"DISTIL_LOSS={name}: it is one of {', '.join(NAMES)}")
    if rows and not (rows.isdecimal() and int(rows) > 0):
        raise ConfigError(f"DISTIL_LOSS_CHUNK={rows}: it is a number of rows, 1 or more")
    return name, int(rows) if rows else None
