"""Seconds, energy and cost of a job, from its products and passes and a device's rates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from distil.planning import passes, products
from distil.planning.communication import Communication, communication, offloads
from distil.planning.machines import HOST_RATE, Machines
from distil.planning.memory import parameters_of
from distil.planning.outline import Outline
from distil.planning.rates import ADAM_BYTES, COPY_BYTES, ITEMSIZE, LAID_OUT_BYTES, PREPARE_BYTES, Rates

# Bytes a parameter that a micro-batch's gradient costs where it is added: in 16 bits, and to a sum in fp32, for which
# DeepSpeed's bf16_optimizer first makes a copy in fp32 of it.
ADDED_BYTES, ADDED_FP32_BYTES = 6, 18


class Micro(NamedTuple):
    """Seconds of a micro-batch by what is done; ``host`` is what launching takes, beside the device's own work.

    ``backward`` is that part of all which is the student's backward pass.
    """

    matrices: float
    attention: float
    passes: float
    gradients: float
    host: float
    backward: float

    def seconds(self, kind: str) -> float:
        """On a device of this ``kind``: a GPU's kernels hide their launches, or wait for them; a CPU does both."""
        return max(self.device, self.host) if kind == "cuda" else self.device + self.host

    @property
    def device(self) -> float:
        """Of the device alone."""
        return self.matrices + self.attention + self.passes + self.gradients


class Prediction(NamedTuple):
    """Of a job on machines. ``flops_a_token`` are those of the step's products; ``peak`` the device's a second."""

    outline: Outline
    machines: Machines
    micro: Micro
    optimizer: float
    communication: Communication
    flops_a_token: float
    peak: float

    @property
    def step_seconds(self) -> float:
        """Of an optimiser step."""
        exposed = self.communication.seconds - self.communication.hidden
        micro = self.micro.seconds(self.machines.device.type)
        return self.outline.placement.accumulation * micro + self.optimizer + exposed

    @property
    def tokens_a_second(self) -> float:
        """Of all ranks."""
        return self.outline.tokens_a_step / self.step_seconds

    @property
    def hours(self) -> float:
        """Of the whole training, without evaluations and checkpoints."""
        return self.outline.steps * self.step_seconds / 3600

    @property
    def kwh(self) -> float:
        """At the most that the nodes draw, each GPU its part."""
        return self.hours * self.machines.count * self.machines.device.watts / 1000

    @property
    def mfu(self) -> float:
        """Share of the peak, of all ranks, that the step's products come to."""
        return self.flops_a_token * self.tokens_a_second / (self.machines.count * self.peak)


def predict(outline: Outline, machines: Machines, rates: Rates) -> Prediction:
    """What ``outline`` will take on ``machines``."""
    placement, parameters = outline.placement, parameters_of(outline.student)
    shares = {True: outline.taught, False: 1 - outline.taught}
    micro = Micro(*(0.0 for _ in Micro._fields))
    flops_a_token = 0.0
    for taught, share in shares.items():
        if share:
            flops_a_token += share * _flops(outline, taught)
            micro = Micro(*(a + share * b for a, b in zip(micro, _micro(outline, rates, taught), strict=True)))
    shards = 1 if placement.zero_stage == 0 else machines.count
    own = parameters / shards
    laid_out, beside = parameters * LAID_OUT_BYTES[placement.precision], own * (PREPARE_BYTES + COPY_BYTES)
    if offloads(placement.config, machines.device.type):
        optimizer = rates.stream(laid_out) + (own * ADAM_BYTES + beside) / HOST_RATE
    else:
        optimizer = rates.update(own) + rates.stream(beside + laid_out)
    sent = communication(
        parameters, placement.config, placement.precision, placement.accumulation, machines, micro.backward
    )
    return Prediction(
        outline, machines, micro, optimizer, sent, flops_a_token, rates.device.flops[placement.precision]
    )  # fmt: skip


def _flops(outline: Outline, taught: bool) -> float:
    """A token."""
    teacher = outline.teacher if taught else None
    rows = outline.rows
    of = [products.distillation(outline.student, teacher, outline.recipe.loss, one) for one in rows]
    return sum(products.flops(p) for pair in of for p in pair) / sum(one.attended for one in rows)


def _micro(outline: Outline, rates: Rates, taught: bool) -> Micro:
    """Of one micro-batch, on average over those that were looked at."""
    each = [_of_rows(outline, rates, taught, rows) for rows in outline.rows]
    scale = outline.tokens_a_micro_batch / sum(rows.attended for rows in outline.rows)
    return Micro(*(scale * sum(values) for values in zip(*each, strict=True)))


def _of_rows(outline: Outline, rates: Rates, taught: bool, rows: products.Rows) -> Micro:
    loss, student = outline.recipe.loss, outline.student
    teacher = outline.teacher if taught else None
    of_teacher, of_student = products.distillation(student, teacher, loss, rows)
    matrices = [p for p in (*of_teacher, *of_student) if not p.inside or p.name == "relations"]
    attention = passes.attention(student, rows.lengths, training=True)
    others = list(work_beside(outline, rates, taught, rows))
    if teacher is not None:
        attention += passes.attention(teacher, rows.lengths, training=False)
    fp32_sums = outline.placement.config.get("data_types", {}).get("grad_accum_dtype") == "fp32"
    parameters = parameters_of(student)
    added = parameters * (ADDED_FP32_BYTES if fp32_sums else ADDED_BYTES * ITEMSIZE[rates.precision] / 2)
    count = sum(1 if p.inside else p.times for p in matrices)  # those of heads and sequences are one operation
    count += sum(p.times for p in attention) + sum(p.times for p in others)
    backward = sum(rates.product(p) for p in matrices if p.kind != products.FORWARD)
    backward += sum(rates.attention(a) for a in attention if a.kind != products.FORWARD)
    backward += sum(rates.pass_(p) for p in others if p.kind != products.FORWARD)
    return Micro(
        sum(map(rates.product, matrices)), sum(map(rates.attention, attention)), sum(map(rates.pass_, others)),
        rates.stream(added), rates.launches(count), backward,
    )  # fmt: skip


def work_beside(outline: Outline, rates: Rates, taught: bool, rows: products.Rows) -> Iterable[passes.Pass]:
    """All passes of a micro-batch but products and attention."""
    loss, student, device = outline.recipe.loss, outline.student, rates.device
    itemsize = ITEMSIZE[rates.precision]
    at = passes.head_of(student, loss, taught, rows, device.type, device.memory, itemsize)
    yield from passes.encoder(student, rows.attended, training=True)
    yield from passes.head(student, at.rows, training=True)
    yield from passes.losses(student, loss, taught, rows, at)
    if taught:
        yield from passes.encoder(outline.teacher, rows.attended, training=False)
        if at.soft:
            yield from passes.head(outline.teacher, at.rows, training=False)
