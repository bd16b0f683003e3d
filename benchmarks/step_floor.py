"""The floor under a step: its matrix products alone, and what of the device's best they could be."""

from __future__ import annotations

import argparse
import time
from itertools import islice
from statistics import median

import torch
from step_setting import job_of
from torch import Tensor

from distil.engine.device import DTYPES, prepare_device
from distil.kernels.packing import PackedWeights, available
from distil.models.shape import student_config
from distil.planning.products import FORWARD, INPUT_GRADIENT, Product, Rows, distillation, flops

PEAK_SIDES = {"cpu": (1024, 2048), "cuda": (4096, 8192)}
TURNS, BATCHES, COPIES = 3, 4, 4


def measure(options: argparse.Namespace, precision: str) -> dict[str, float]:
    """Real tokens and seconds of the products of some micro-batches, FLOPs of a token, and the device's best FLOP/s."""
    device, _ = prepare_device(1, 0)
    job = job_of(options, precision, device)
    batcher, student = job.batcher(), student_config(job.teacher_config, job.shape)
    tokens = seconds = operations = 0.0
    for number in islice(range(0, 10**6, 7), BATCHES):
        batch = batcher.batch(number)
        rows = Rows(batch.cu_seqlens_B1.diff().tolist(), len(batch.predicted_rows_M))
        of_both = sum(distillation(student, job.teacher_config, job.recipe.loss, rows), [])
        tokens, operations = tokens + rows.attended, operations + flops(of_both)
        seconds += sum(time_of(product, DTYPES[precision], device) for product in of_both)
    return {"tokens": tokens, "seconds": seconds, "flops": operations / tokens, "peak": peak(DTYPES[precision], device)}


def time_of(product: Product, dtype: torch.dtype, device: torch.device) -> float:
    """Seconds of a product, as often as the step has it, in the faster of the ways that torch has here."""
    p = product
    copies = min(p.times, COPIES)  # so that a weight is not in the cache from the time before
    if p.inside:  # many small ones at once, as attention makes them
        left, right = (
            torch.randn(p.times, *shape).to(device, dtype) for shape in ((p.rows, p.inner), (p.inner, p.columns))
        )
        return _seconds(lambda _: torch.bmm(left, right), 1, device)
    left = torch.randn(p.rows, p.inner).to(device, dtype)
    if p.kind == FORWARD:
        weights = [torch.randn(p.columns, p.inner).to(device, dtype) for _ in range(copies)]
        taken = _seconds(lambda i: torch.mm(left, weights[i % copies].t()), copies, device)
        if device.type == "cpu" and available(dtype):
            packed = PackedWeights()
            taken = min(taken, _seconds(lambda i: packed.product(left, weights[i % copies], None), copies, device))
    elif p.kind == INPUT_GRADIENT:
        weights = [torch.randn(p.inner, p.columns).to(device, dtype) for _ in range(copies)]
        taken = _seconds(lambda i: torch.mm(left, weights[i % copies]), copies, device)
    else:
        factors = [torch.randn(p.inner, p.rows).to(device, dtype) for _ in range(copies)]
        right = torch.randn(p.inner, p.columns).to(device, dtype)
        taken = _seconds(lambda i: torch.mm(factors[i % copies].t(), right), copies, device)
    return taken * p.times / copies


def peak(dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of square products, the best."""
    best = 0.0
    for side in PEAK_SIDES[device.type]:
        left, right = (torch.randn(side, side).to(device, dtype) for _ in range(2))
        out: Tensor = torch.empty_like(left)
        best = max(best, 2 * side**3 / _seconds(lambda _: torch.mm(left, right, out=out), 1, device))  # noqa: B023
    return best


def _seconds(work: object, times: int, device: torch.device) -> float:
    """Median seconds of ``times`` calls, which get their number, after one turn that warms up."""
    taken = []
    for turn in range(TURNS + 1):
        _wait(device)
        began = time.perf_counter()
        for i in range(times):
            work(i)
        _wait(device)
        if turn:
            taken.append(time.perf_counter() - began)
    return median(taken)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
