"""A prediction as a person reads it: a row a figure, each marked as what it is."""

from __future__ import annotations

from collections.abc import Iterator

from distil.markdown import aligned
from distil.planning.machines import GIB
from distil.planning.memory import Memory
from distil.planning.options import Asked
from distil.planning.prediction import Prediction
from distil.summary import COLUMN, in_columns

MIB = 2**20


def table(prediction: Prediction, memory: Memory, asked: Asked, sources: list[str]) -> str:
    """All rows; ``sources`` say where the rates are from."""
    rows = _job(prediction) | _speed(prediction) | _memory(memory) | _cost(prediction, asked)
    rows["from"] = _below([*sources, *prediction.outline.notes])
    return in_columns(rows)


def side_by_side(predictions: list[Prediction], memories: list[Memory], asked: Asked) -> str:
    """A Markdown table of one job on several machines, and below it what is assumed and where it is placed."""
    columns = ["machines", "", "tokens/s", "MFU", "time", "memory a rank", "sent a rank and step", "kWh, at most"]
    rows = [
        [
            str(of.machines), "predicted", f"{of.tokens_a_second:,.0f}", f"{of.mfu:.0%}", duration(of.hours),
            f"{needed.total / GIB:.1f} of {needed.available / GIB:.1f} GiB{'' if needed.fits else ', does not fit'}",
            f"{of.communication.sent / MIB:,.0f} MiB, {of.communication.seconds * 1e3:.1f} ms", f"{of.kwh:,.0f}",
        ]
        for of, needed in zip(predictions, memories, strict=True)
    ]  # fmt: skip
    for price, title, cost in (
        (asked.price_kwh, "electricity at {:g} a kWh", _electricity),
        (asked.price_gpu_hour, "rent at {:g} a GPU and hour", _rent),
    ):
        if price:
            columns.append(title.format(price))
            rows = [[*row, f"{cost(of, price):,.2f}"] for row, of in zip(rows, predictions, strict=True)]
    notes = [note for of in predictions for note in (*of.outline.placement.notes, *of.outline.notes)]
    return "\n".join([aligned(columns, rows), *(f"  {note}" for note in dict.fromkeys(notes))])


def _job(of: Prediction) -> dict[str, str]:
    job, place = of.outline, of.outline.placement
    return {
        "machines": f"{of.machines}, {place.path}: ZeRO-{place.zero_stage}, {place.precision}",
        "tokens": f"{job.tokens:.3g} in {job.steps:,} steps of {job.tokens_a_step:,.0f}"
        f", {micro_batches(place.accumulation)} of {job.tokens_a_micro_batch:,.0f} a rank and step",
        "FLOPs": f"{of.flops_a_token / 1e6:,.1f} M a token, {of.flops_a_token * job.tokens:.3g} in all",
    }


def _speed(of: Prediction) -> dict[str, str]:
    micro, sent = of.micro, of.communication
    parts = {
        "products": micro.matrices, "attention": micro.attention, "passes": micro.passes,
        "adding gradients": micro.gradients,
    }  # fmt: skip
    kind = of.machines.device.type
    shown = ", ".join(f"{name} {seconds * 1e3:,.2f}" for name, seconds in parts.items())
    beside = "beside it, launches" if kind == "cuda" else "launches"
    total = f"{micro.seconds(kind) * 1e3:,.2f} ms"
    return {
        "speed": f"predicted {of.tokens_a_second:,.0f} tokens/s, MFU {of.mfu:.1%}, {duration(of.hours)} "
        "without evaluations and checkpoints, layers eager (no --compile)",
        "a micro-batch": f"{total}: {shown}; {beside} {micro.host * 1e3:,.2f}",
        "a step": f"{of.step_seconds * 1e3:,.1f} ms, of these the optimiser {of.optimizer * 1e3:,.2f}",
        "communication": f"{sent.sent / MIB:,.0f} MiB a rank and step, {sent.seconds * 1e3:,.2f} ms, "
        f"{sent.share_hidden:.0%} of it behind the backward pass"
        if sent.sent
        else "none, with one rank",
    }  # fmt: skip


def micro_batches(count: int) -> str:
    """So many of them."""
    return f"{count:,} micro-batch{'es' if count > 1 else ''}"


def duration(hours: float) -> str:
    """In hours, minutes or seconds, of which there is at least one."""
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:,.1f} min" if hours * 60 >= 1 else f"{hours * 3600:,.1f} s"


def _memory(of: Memory) -> dict[str, str]:
    lines = [f"{of.total / GIB:.1f} GiB a rank of {of.available / GIB:.1f}{'' if of.fits else ': does NOT fit'}"]
    lines += [f"{part.bytes / MIB:>9,.0f} MiB  {part.name}{' (one of these)' * part.beside}" for part in of.parts]
    if not of.fits:
        lines.append(remedy(of))
    return {"memory": _below(lines)}


def remedy(of: Memory) -> str:
    """What to change where the memory is too small: what holds the most of it."""
    largest = max(of.parts, key=lambda part: part.bytes).name
    if largest in ("fp32 weights and Adam's moments", "gradients", "student's weights"):
        return "to fit: more ranks, or --deepspeed ds_config/zero2_offload.json or ds_config/zero3.json"
    return "to fit: half the --micro_batch_size, and so on; the global batch and the result stay the same"


def _cost(of: Prediction, asked: Asked) -> dict[str, str]:
    rows = {}
    if of.machines.device.watts:
        rows["electricity"] = f"{of.kwh:,.1f} kWh at most" + (
            f", {_electricity(of, asked.price_kwh):,.2f} at {asked.price_kwh:g} a kWh" if asked.price_kwh else ""
        )
    elif asked.price_kwh:
        rows["electricity"] = f"unknown, and its price left out: nothing is known of the watts of {of.machines}"
    if asked.price_gpu_hour:
        hours = duration(of.hours * of.machines.count)
        rows["rent"] = (
            f"{_rent(of, asked.price_gpu_hour):,.2f} for {hours} of a GPU at {asked.price_gpu_hour:g} an hour"
        )
    return rows


def _electricity(of: Prediction, price: float) -> float:
    return of.kwh * price


def _rent(of: Prediction, price: float) -> float:
    return of.hours * of.machines.count * price


def _below(lines: list[str] | Iterator[str]) -> str:
    return f"\n  {'':<{COLUMN}}".join(lines)
