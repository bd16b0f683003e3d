"""Our step as the trainer takes it, and the same with one technique taken away, or one more."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from step_setting import DS_CONFIG, job_of, timed
from torch.nn import functional as F

from distil import stepping
from distil.checkpoint.manifest import Position
from distil.data.batch import PackedBatch
from distil.data.feed import Feed
from distil.distillation import Distillation
from distil.engine.device import DTYPES
from distil.engine.ranks import start_ranks, stop_ranks
from distil.engine.wrapped import Engine
from distil.kernels import IGNORED, host, packing, paths
from distil.models import attention
from distil.models import packed as packed_attention
from distil.models.constants import in_precision
from distil.models.distiller import Distiller
from distil.models.student import decay_groups

Change = Callable[[], Any]


def measure(options: argparse.Namespace, precision: str, change: str | None) -> dict[str, Any]:
    """Real tokens and seconds of our step under one of CHANGES, or none, and seconds in which it waited for batches."""
    with CHANGES[change]() if change else nullcontext() as ds_config:
        options.ds_config = ds_config or DS_CONFIG
        ranks = start_ranks()
        try:
            return _timed(options, precision, change, ranks)
        finally:
            stop_ranks()


def _timed(options: argparse.Namespace, precision: str, change: str | None, ranks: Any) -> dict[str, Any]:
    options.compiled = change == COMPILED
    job = job_of(options, precision, ranks.device)
    torch.manual_seed(job.recipe.optimizer.seed)
    teacher, family = job.load_teacher(torch.float32)
    student = job.make_student(teacher).model
    teacher = in_precision(teacher, DTYPES[precision]).to(ranks.device)
    module = Distiller(student, job.shape.family, teacher, family, job.recipe.loss)
    engine = Engine(module, decay_groups(module, job.recipe.optimizer.weight_decay), job.placement, ranks)
    work = Distillation(job)
    if change == UNPACKED:
        pad, packed = job.tokenizer.pad_token_id, work.batch
        work.batch = lambda number: padded(packed(number), pad)
    fetch = waiting(student) if change == WAITING else lambda: None
    with stepping.Stepper(work, engine, ranks, Position(0, 0, 0), fetch) as steps:

        def step() -> int:
            at = steps.at.tokens
            steps.step()
            return steps.at.tokens - at

        return timed(options, step, lambda: steps.waited, ranks.device)


def padded(batch: PackedBatch, pad_id: int) -> PackedBatch:
    """The same batch with every sequence as long as the longest: pads are tokens like others to all that follows."""
    lengths_B = batch.cu_seqlens_B1.diff().long()
    is_token = (torch.arange(batch.longest) < lengths_B[:, None]).flatten()
    ids_N = torch.full((len(is_token),), pad_id)
    labels_N = torch.full((len(is_token),), IGNORED)
    ids_N[is_token], labels_N[is_token] = batch.input_ids_N, batch.labels_N
    return PackedBatch.pack(ids_N.numpy(), labels_N.numpy(), torch.full_like(lengths_B, batch.longest).numpy())


def waiting(model: torch.nn.Module) -> Callable[[], None]:
    """Fetches as many values from the device after a micro-batch as the published loop does."""
    parameter = next(model.parameters())

    def fetch() -> None:
        for _ in range(FETCHED):
            parameter.flatten()[0].item()

    return fetch


class InlineFeed(Feed):
    """Makes each batch when it is asked for."""

    def __next__(self) -> Any:
        began = time.perf_counter()
        batch = self._make(next(self._numbers))
        self.waited += time.perf_counter() - began
        return batch

    def _order(self, count: int) -> None:
        """Nothing ahead."""


@contextmanager
def _set(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def _plain_optimizer() -> Iterator[Path]:
    """A ds_config."""
    config = json.loads(DS_CONFIG.read_text())
    config["optimizer"]["params"]["fused"] = False
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ds_config.json"
        path.write_text(json.dumps(config))
        yield path


def _stock_dropout() -> Any:
    def stock(_: Any, x: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        return F.dropout(x, p, training, inplace)

    return _set(host.HostFunctions, "_dropout", stock)


def _default_allocator() -> Any:
    from distil.engine import device

    return _set(device, "_keep_freed_memory", lambda: None)


UNPACKED, WAITING, COMPILED = "without packing", "with values fetched", "with layers compiled"
CPU_ALONE = ("of ours", "laid out", "by vectors", "memory kept")  # in names of what only a CPU does otherwise
FETCHED = 5  # scalars of a micro-batch
# What is done otherwise while one of these is entered.
CHANGES: dict[str, Change] = {
    UNPACKED: nullcontext,
    "without fused loss": lambda: _set(paths, "path_for", lambda _: paths.Path("reference", "a measurement", None)),
    "without attention of ours": lambda: _set(packed_attention.cpu_attention, "takes", lambda *_: False),
    "without weights laid out once": lambda: _set(packing.PackedWeights, "takes", lambda *_: False),
    "without dropout by vectors": _stock_dropout,
    "without freed memory kept": _default_allocator,
    "without fused optimizer": _plain_optimizer,
    WAITING: nullcontext,
    "without batches ahead": lambda: _set(stepping, "Feed", InlineFeed),
    "without kernels for packed rows": lambda: _set(attention, "capability_of", lambda _: None),
    COMPILED: nullcontext,
}


def changes(device: torch.device) -> list[str]:
    """Names of those that change something on a device."""
    gpu = device.type == "cuda"
    return [n for n in CHANGES if (not any(part in n for part in CPU_ALONE) if gpu else "kernels for" not in n)]
