"""What a device computes in, and what DeepSpeed and torch must be told of it before ranks start."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
from pathlib import Path

import torch

if not torch.accelerator.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed warns on every rank that it has found none

import deepspeed
from deepspeed.accelerator import get_accelerator
from torch.utils._triton import has_triton

from distil.errors import ConfigError, by_all
from distil.kernels import build

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_LIBC = ctypes.CDLL(None)


def prepare_device(ranks_here: int, local_rank: int) -> tuple[torch.device, str]:
    """This rank's device and the backend of its collectives. Raises ConfigError where torch has no code for a GPU."""
    accelerator = get_accelerator()
    if accelerator.device_name() == "cpu":
        _keep_freed_memory()
        _share_cores(ranks_here)
        # Gloo alone: DeepSpeed's shared-memory op is compiled on first use, which needs a compiler and minutes.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        # torch computes in fp16 on any CPU, slowly; DeepSpeed would refuse it where oneDNN has no instructions for it.
        accelerator.is_fp16_supported = lambda: True
        return torch.device("cpu"), "gloo"
    accelerator.set_device(local_rank)
    if torch.cuda.is_available():
        check_kernels(torch.device("cuda", torch.cuda.current_device()))
    return torch.device(accelerator.current_device_name()), accelerator.communication_backend_name()


def check_kernels(device: torch.device) -> None:
    """Raise ConfigError where this torch has no code for a GPU."""
    major, minor = torch.cuda.get_device_capability(device)
    built_for = [int(arch[3:]) for arch in torch.cuda.get_arch_list() if arch[3:].isdigit()]
    if built_for and 10 * major + minor < min(built_for):
        raise ConfigError(
            f"this torch ({torch.__version__}) has no kernels for {torch.cuda.get_device_name(device)} "
            f"(sm_{major}{minor}); a V100 needs torch's CUDA 12.6 build: install that into .venv"
        )


def check_compiler(device: torch.device) -> None:
    """Raise ConfigError where torch.compile lacks what it makes code with."""
    if device.type == "cpu" and build.compiler() is None:
        raise by_all(ConfigError("--compile needs a C++ compiler on a CPU: apt-get install g++, or leave it out"))
    if device.type == "cuda" and not has_triton():
        name = torch.cuda.get_device_name(device)
        raise by_all(ConfigError(f"--compile: Triton is missing, or has no code for {name}; leave it out"))


def op_problems(really_build: bool) -> dict[str, str | None]:
    """DeepSpeed's extensions that a run may use, each with what keeps it from being built here, or None.

    Asks them, or really builds them.
    """
    problems: dict[str, str | None] = {}
    wanted = ["CPUAdamBuilder"] + (["FusedAdamBuilder"] if get_accelerator().device_name() == "cuda" else [])
    for name in wanted:
        builder = get_accelerator().create_op_builder(name)
        try:
            possible = builder.is_compatible(verbose=False)
            problems[builder.name] = None if possible else builder.error_log or "its requirements are not met"
            if possible and really_build:
                with contextlib.redirect_stdout(io.StringIO()):
                    builder.load(verbose=False)
        except Exception as error:  # noqa: BLE001 - whatever a compiler or a toolkit that is not there brings
            problems[builder.name] = f"{type(error).__name__}: {error}"
    return problems


def precisions_of(device: torch.device) -> tuple[str, ...]:
    """What a device computes in at speed, best first: fp16 only on a GPU, bf16 where there are instructions for it."""
    if device.type == "cuda":
        bf16 = torch.cuda.get_device_capability(device) >= (8, 0)
        return ("fp16", "bf16", "fp32") if bf16 else ("fp16", "fp32")
    return ("bf16", "fp32") if _cpu_has_bf16() else ("fp32",)


def _cpu_has_bf16() -> bool:
    flags = Path("/proc/cpuinfo")
    return flags.exists() and any(f in flags.read_text() for f in ("avx512_bf16", "amx_bf16", "bf16 "))


def _keep_freed_memory() -> None:
    """Let glibc reuse large freed blocks, which by default are mapped and page-faulted anew, and ask for huge pages."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch asks for pages of 2 MiB; read at its first large tensor
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(m_mmap_max, 0)
        _LIBC.mallopt(m_trim_threshold, 2**31 - 1)


def _share_cores(ranks_here: int) -> None:
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // ranks_here))
