"""The only door to DeepSpeed: start the ranks, wrap the student with its loss, step, gather, save, close."""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

if not torch.accelerator.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # or DeepSpeed warns on every rank that it has found none

import deepspeed
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer
from deepspeed.utils import logger, safe_get_full_fp32_param
from torch import Tensor, nn

from distil.errors import ConfigError, UserError
from distil.placement import Placement

T = TypeVar("T")
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Ranks:
    """This process among all that train together."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The values summed over all ranks, in place."""
        dist.all_reduce(values)
        return values

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def wait(self) -> None:
        """Until every rank is here."""
        dist.barrier()

    def first_does(self, work: Callable[[], T]) -> T:
        """The result of work that rank 0 alone does, on every rank; a user's mistake in it is raised on every rank."""
        result, error = _attempt(work) if self.first else (None, None)
        result, error = self.share((result, error))
        return _settled(result, error)

    def all_do(self, work: Callable[[], T]) -> T:
        """The result of work that every rank does; the first mistake of a user in it is raised on every rank."""
        result, error = _attempt(work)
        errors: list[UserError | None] = [None] * self.world
        dist.all_gather_object(errors, error)
        return _settled(result, next((e for e in errors if e is not None), None))


def _attempt(work: Callable[[], T]) -> tuple[T | None, UserError | None]:
    try:
        return work(), None
    except UserError as mistake:
        return None, mistake


def _settled(result: T, error: UserError | None) -> T:
    if error is not None:
        error.shared = True
        raise error
    return result


def start_ranks() -> Ranks:
    """Join the ranks the launcher started; without a launcher this process is the only one."""
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
        os.environ["MASTER_PORT"] = str(port)
    accelerator = get_accelerator()
    on_cpu = accelerator.device_name() == "cpu"
    if on_cpu:
        _keep_freed_memory()
        _share_cores(int(os.environ.get("LOCAL_SIZE", os.environ["WORLD_SIZE"])))  # LOCAL_SIZE: DeepSpeed's launcher
        # Gloo alone: DeepSpeed's shared-memory op is compiled on first use, which needs a compiler and minutes.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        # torch computes in fp16 on any CPU, slowly; DeepSpeed would refuse it where oneDNN has no instructions for it.
        accelerator.is_fp16_supported = lambda: True
    else:
        accelerator.set_device(int(os.environ["LOCAL_RANK"]))
        if torch.cuda.is_available():
            check_kernels(torch.device("cuda", torch.cuda.current_device()))
    logger.setLevel("WARNING")
    backend = "gloo" if on_cpu else accelerator.communication_backend_name()
    deepspeed.init_distributed(dist_backend=backend, auto_mpi_discovery=False, verbose=False)
    return Ranks(dist.get_rank(), dist.get_world_size(), torch.device(accelerator.current_device_name()))


def check_kernels(device: torch.device) -> None:
    """Raise ConfigError where this torch has no code for a GPU."""
    major, minor = torch.cuda.get_device_capability(device)
    built_for = [int(arch[3:]) for arch in torch.cuda.get_arch_list() if arch[3:].isdigit()]
    if built_for and 10 * major + minor < min(built_for):
        raise ConfigError(
            f"this torch ({torch.__version__}) has no kernels for {torch.cuda.get_device_name(device)} "
            f"(sm_{major}{minor}); a V100 needs torch's CUDA 12.6 build: install that into .venv"
        )


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


def stop_ranks() -> None:
    """Leave the ranks; without it about one CPU run in twenty aborts after it has finished."""
    if dist.is_initialized():
        dist.destroy_process_group()


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


class Engine:
    """DeepSpeed around a module whose forward returns the loss as its share of the global batch.

    The module holds student and loss together: ZeRO-3 gathers a weight only for forwards that it wraps.
    """

    def __init__(self, module: nn.Module, groups: list[dict[str, Any]], placement: Placement, ranks: Ranks) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # some of its optimisers print memory tables
            self._engine, *_ = deepspeed.initialize(model=module, model_parameters=groups, config=placement.config)
        self._ranks = ranks
        self._norm: Tensor | float | None = None
        optimizer = self._engine.optimizer
        # Stage 0 in 16 bits: a wrapper of the optimiser whose handling of the loss scale is left to us (0.19.8).
        self._unfused = optimizer if isinstance(optimizer, FP16_UnfusedOptimizer) else None
        if self._unfused is not None:
            # It has taken a step on zeros, which moves Adam's bias correction on by one and decays the weights.
            self._unfused.optimizer.state.clear()
            for half, full in self._unfused_masters().items():
                full.data.copy_(half.data)

    def micro_step(self, *args: Any, weight: float = 1.0) -> Tensor:
        """Forward, backward and, on the last micro-batch of a step, the update. Returns the loss terms, detached.

        A micro-batch of weight 0 only keeps this rank in step with the others.
        """
        output = self._engine(*args)
        # DeepSpeed averages over ranks and accumulation; shares of a global batch are to be summed.
        loss = output.total * (weight * self._ranks.world)
        scale = self.loss_scale
        if self._unfused is not None:
            loss = loss * scale  # it divides gradients by the scale without having multiplied the loss
        self._engine.backward(loss, scale_wrt_gas=False)
        boundary = self._engine.is_gradient_accumulation_boundary()
        if boundary and self._engine.optimizer is self._engine.basic_optimizer:
            grads = [p.grad for p in self._engine.module.parameters() if p.grad is not None]
            self._norm = torch.nn.utils.get_total_norm(grads)
        self._engine.step()
        if boundary and self._unfused is not None:
            self._norm = self._engine.get_global_grad_norm() / scale
        return output.terms * weight

    def evaluate(self, *args: Any) -> Any:
        """The module's forward without gradient, in eval mode; all ranks must call it alike."""
        self._engine.eval()
        with torch.no_grad():
            output = self._engine(*args)
        self._engine.train()
        return output

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the step to come."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr

    @property
    def grad_norm(self) -> float:
        """Global norm of the last step's gradients before clipping; waits for the device."""
        norm = self._engine.get_global_grad_norm() if self._norm is None else self._norm
        return float(norm) if norm is not None else float("nan")

    @property
    def loss_scale(self) -> float:
        """Factor that keeps fp16 gradients from flushing to zero; 1 in other precisions."""
        if self._unfused is not None:
            return float(self._unfused.loss_scale_config.cur_scale)
        return float(getattr(self._engine.optimizer, "loss_scale", 1.0))

    @property
    def skipped_steps(self) -> int:
        """Steps left out so far because a gradient overflowed."""
        return self._engine.skipped_steps

    def fp32_parameters(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Name and full fp32 value, on the CPU, of every parameter of ``model``; all ranks must iterate together."""
        masters = self._unfused_masters()
        for name, parameter in model.named_parameters():
            value = masters.get(parameter)
            if value is None:
                value = safe_get_full_fp32_param(parameter)
            yield name, (parameter if value is None else value).detach().float().cpu()

    def _unfused_masters(self) -> dict[nn.Parameter, Tensor]:
        if self._unfused is None:
            return {}
        groups = zip(self._unfused.fp16_groups, self._unfused.fp32_groups, strict=True)
        return {half: full for halves, fulls in groups for half, full in zip(halves, fulls, strict=True)}

    def save(self, root: Path, tag: str) -> None:
        """Write model and optimiser shards to ``root/tag``; every rank must call it, at an accumulation boundary."""
        self._engine.save_checkpoint(str(root), tag=tag, save_latest=False)

    def load(self, root: Path, tag: str) -> None:
        """Restore what ``save`` wrote; every rank must call it."""
        path, _ = self._engine.load_checkpoint(str(root), tag=tag)
        assert path is not None, f"DeepSpeed found no checkpoint in {root / tag}"

    def close(self) -> None:
        """Free DeepSpeed's hooks and buffers, so that another engine can follow in this process."""
        self._engine.destroy()
