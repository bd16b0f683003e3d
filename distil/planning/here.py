"""A plan for the machine at hand, by rates measured on it; with --measure held against real steps."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterator

import torch

from distil.config import Recipe
from distil.engine.device import DTYPES, precisions_of
from distil.engine.ranks import start_ranks, stop_ranks
from distil.errors import ConfigError
from distil.machine import device_name, machine
from distil.planning.bench import Bench, measured
from distil.planning.calibration import Asking, Calibration, Item, keep, kept, memory_here, place_of
from distil.planning.described import assumed_links, described, placed_on
from distil.planning.machines import GIGA, Device, Machines, Share, reported_as
from distil.planning.options import Asked
from distil.planning.outline import Outline, outline
from distil.planning.prediction import predict
from distil.planning.rehearsal import Rehearsed, rehearse, shortened
from distil.planning.table import micro_batches

LOCAL = Share(1.0, "measured")


def plan_here(asked: Asked, recipe: Recipe) -> Iterator[str]:
    """The plan; measured, if that was asked for, by rates and then beside a few steps. Raises ConfigError."""
    ranks = start_ranks()
    try:
        here = machines_here(ranks.device)
        job = outline(recipe, placed_on(here, asked, recipe), asked.tokens)
        precision = job.placement.precision
        alone = Machines(here.device, 1)
        short = shortened(job, lambda of: placed_on(alone, asked, of))
        found = None
        if asked.measure:
            items = wanted([(job, here), (short, alone)])
            yield f"measuring {len(items)} rates of {machine(ranks.device)} in {precision}, before and after real steps"
            found = measure(items, lambda: rehearse(short, ranks, asked.measure), ranks.device, precision)
        rates = Calibration(with_peak(here.device, precision, ranks.device), precision, kept(ranks.device, precision))
        of = Machines(rates.device, here.count)
        from_where = [f"rates measured on {machine(ranks.device)}, kept in {place_of(ranks.device, precision)}"]
        if of.count > 1:
            from_where.append(f"links of data sheets: {of.device.node}; {assumed_links()}")
        yield described(job, of, rates, asked, from_where)
        if found is not None:
            expected = predict(short, Machines(rates.device, 1), rates).tokens_a_second
            yield compared(expected, *found, short)
    finally:
        stop_ranks()


def compared(expected: float, found: Rehearsed, drift: float, job: Outline) -> str:
    """Predicted beside measured, and by how much the machine itself became slower meanwhile."""
    off = expected / found.tokens_a_second - 1
    return (
        f"  a rehearsal of {found.steps} steps of {micro_batches(job.placement.accumulation)} on one rank, in "
        f"{job.placement.precision}: predicted {expected:,.0f} tokens/s, measured {found.tokens_a_second:,.0f}, "
        f"{off:+.1%} (rates after it took {drift:+.0%} of the time before)"
    )


def wanted(jobs: list[tuple[Outline, Machines]]) -> dict[str, Item]:
    """All whose rates are needed to predict the jobs, by key."""
    job, machines = jobs[0]
    asking = Asking(machines.device, job.placement.precision)
    for job, machines in jobs:
        predict(job, machines, asking)
    return asking.items


def measure(
    items: dict[str, Item], steps: Callable[[], Rehearsed], device: torch.device, precision: str
) -> tuple[Rehearsed, float]:
    """Measure the rates before and after ``steps``, and keep the means; returns the steps, and how rates moved.

    A machine that others use, or that grows hot, is another one a minute later.
    """
    bench = Bench(device, DTYPES[precision])
    before = dict(measured(items, bench))
    found = steps()
    after = dict(measured(items, bench))
    keep(device, precision, {name: (before[name] + after[name]) / 2 for name in items})
    return found, statistics.median(after[name] / before[name] for name in items) - 1


def machines_here(device: torch.device) -> Machines:
    """The devices of this machine, whose rates are to be measured; links and watts are those of its sheet.

    Raises ConfigError for several without one: their links are not measured.
    """
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    return of_this(device_name(device), count, precisions_of(device), memory_here(device), device.type)


def of_this(name: str, count: int, precisions: tuple[str, ...], memory: int, kind: str) -> Machines:
    """So many devices that torch calls so. Raises ConfigError."""
    sheet = reported_as(name)
    if sheet is None and count > 1:
        raise ConfigError(
            f"--gpus this: {count} x {name}, of whose links nothing is known; plan one of them, as in "
            "CUDA_VISIBLE_DEVICES=0, or a machine that has a data sheet here, as in --gpus 8xV100"
        )
    link, network, watts = (sheet.link, sheet.network, sheet.node_watts) if sheet else (GIGA, GIGA, 0.0)
    of = Device(
        name, dict.fromkeys(precisions, 1.0), 1, memory, GIGA, link=link, network=network, node_watts=watts,
        matrix=LOCAL, stream=LOCAL, node=sheet.node if sheet else "this machine",
        node_gpus=sheet.node_gpus if sheet else 1, type=kind,
    )  # fmt: skip
    return Machines(of, count)


def with_peak(of: Device, precision: str, device: torch.device) -> Device:
    """The device with the fastest of its measured products as its peak."""
    rates = [1 / seconds for name, seconds in kept(device, precision).items() if name.startswith(("product", "head"))]
    return dataclasses.replace(of, flops=of.flops | {precision: max(rates, default=1.0)})
