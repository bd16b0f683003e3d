"""Microbenchmarks: seconds of one unit of each kind of work, by the calls that a step makes, at its own shapes.

None of them is a step. Operands take turns, so that a call finds its own no warmer in the caches than a step does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distil.kernels.host import host_functions
from distil.kernels.packing import PackedWeights, in_use
from distil.kernels.paths import path_for
from distil.kernels.rows import Kernels, Slopes, TorchKernels
from distil.models.packed import Padding, packed_attention
from distil.planning.calibration import LAUNCH, STREAM, UPDATE, Item, units
from distil.planning.passes import Attention, Pass
from distil.planning.products import FORWARD, INPUT_GRADIENT, Product

SECONDS, LEAST, MOST = 0.15, 4, 200  # of all calls of one kind, and how many there are
TURNING_BYTES, TURNS = 2**27, 8  # of operands that take turns
STREAMED, UPDATED = 2**24, 2**23  # elements
TEMPERATURE = 2.0
OF_LOGITS, ROWS = ("loss", "labels' loss"), 256  # rows of logits that are compared at once
Call = Callable[[], object]


class Bench:
    """Times work on a device in a type of numbers."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype
        self._draw = torch.Generator(device).manual_seed(0)
        self._kernels: Kernels = path_for(device).kernels or TorchKernels()

    def seconds_a_unit(self, item: Item) -> float:
        """Of one unit of an item, the median over calls; on a CPU by the functions that a step has there."""
        with host_functions(PackedWeights(), self.device):
            return self._seconds_a_unit(item)

    def _seconds_a_unit(self, item: Item) -> float:
        match item:
            case Product():
                one = item._replace(times=1)
                held = one.rows * one.inner + one.inner * one.columns + one.rows * one.columns
                return self._time(lambda: self._product(one), self._turns(held)) / one.flops
            case Attention():
                one = item._replace(times=1)
                return self._time(lambda: self._attention(one), turns=2) / one.flops
            case Pass():
                one = item._replace(times=1, rows=min(item.rows, ROWS) if item.name in OF_LOGITS else item.rows)
                return self._time(lambda: self._pass(one), self._turns(2 * one.rows * one.width)) / units(one)
        return {UPDATE: self._update, STREAM: self._stream, LAUNCH: self._launch}[item]()

    def _turns(self, elements: int) -> int:
        return max(1, min(TURNS, TURNING_BYTES // (elements * self.dtype.itemsize)))

    def _random(self, *shape: int, dtype: torch.dtype | None = None, grad: bool = False) -> Tensor:
        values = torch.randn(shape, generator=self._draw, device=self.device).to(dtype or self.dtype)
        return values.requires_grad_(grad)

    def _time(self, make: Callable[[], Call], turns: int) -> float:
        """Median seconds of what ``make`` makes, several of it by turns."""
        first = make()
        calls = [first, *(make() for _ in range(turns - 1))]
        for call in calls:  # weights are laid out then, which a step does once for many micro-batches
            call()
        taken: list[float] = []
        for call in cycle(calls):
            taken.append(self._timed(call))
            if len(taken) >= MOST or (len(taken) >= LEAST and sum(taken) > SECONDS):
                return statistics.median(taken)
        raise AssertionError("a cycle has no end")

    def _timed(self, call: Call) -> float:
        self._wait()
        began = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _product(self, of: Product) -> Call:
        if of.kind == FORWARD:
            rows, weight, bias = (
                self._random(*shape) for shape in ((of.rows, of.inner), (of.columns, of.inner), (of.columns,))
            )
            if of.name == "head.decoder" and in_use.get() is None:
                out = self._random(of.rows, of.columns)
                return lambda: torch.addmm(bias, rows, weight.t(), out=out)
            parameter = nn.Parameter(weight, requires_grad=False)  # which is what is laid out once
            return lambda: F.linear(rows, parameter, bias)
        if of.kind == INPUT_GRADIENT:
            gradient, weight = self._random(of.rows, of.inner), self._random(of.inner, of.columns)
            return lambda: gradient @ weight
        # A weight is (outputs, inputs): the gradient's columns are its rows.
        gradient, rows = self._random(of.inner, of.columns), self._random(of.inner, of.rows)
        return lambda: gradient.t() @ rows

    def _attention(self, of: Attention) -> Call:
        ends = torch.tensor([0, *of.lengths]).cumsum(0).to(torch.int32)
        positions = torch.cat([torch.arange(length) for length in of.lengths])
        padding = Padding(ends.to(self.device), max(of.lengths), positions.to(self.device))
        training = of.kind != FORWARD or of.dropout > 0
        made = [self._random(1, len(positions), of.heads * of.width, grad=training) for _ in range(3)]
        module: Any = SimpleNamespace(is_causal=of.causal)

        def forward() -> Tensor:
            split = (x.unflatten(2, (of.heads, of.width)).transpose(1, 2) for x in made)
            how = {"padding": padding, "dropout": of.dropout, "scaling": of.width**-0.5}
            return packed_attention(module, *split, None, **how)[0].flatten(2)

        return forward if of.kind == FORWARD else self._backward(forward, made)

    def _backward(self, forward: Callable[[], Tensor], of: list[Tensor]) -> Call:
        """The backward pass of what ``forward`` does once, as often as is asked."""
        out = forward()
        gradient = torch.randn_like(out)
        return lambda: torch.autograd.grad(out, of, gradient, retain_graph=True)

    def _pass(self, of: Pass) -> Call:
        if of.name in ("loss", "labels' loss", "cosine", "sum", "scaled"):
            return self._of_loss(of)
        if of.name == "bias gradient":
            gradient = self._random(of.rows, of.width)
            return lambda: gradient.sum(0)
        if of.name == "word gradient":
            table = self._random(of.rows, of.width, grad=True)
            ids = torch.randint(of.rows, (512,), device=self.device)
            return self._backward(lambda: F.embedding(ids, table), [table])
        inputs = [self._random(of.rows, of.width, grad=of.kind != FORWARD)]
        if of.name == "norm":
            inputs += [self._random(of.width, grad=of.kind != FORWARD) for _ in range(2)]
        if of.name in ("add", "gate"):
            inputs.append(self._random(of.rows, of.width, grad=of.kind != FORWARD))
        ids = torch.randint(512, (of.rows,), device=self.device)
        if of.name == "lookup":
            inputs = [self._random(512, of.width, grad=of.kind != FORWARD)]
        forward = {
            "norm": lambda: F.layer_norm(inputs[0], (of.width,), *inputs[1:]),
            "activation": lambda: F.gelu(inputs[0]),
            "gate": lambda: inputs[0] * inputs[1],
            "add": lambda: inputs[0] + inputs[1],
            "dropout": lambda: F.dropout(inputs[0], 0.1, True),
            "lookup": lambda: F.embedding(ids, inputs[0]),
        }[of.name]
        if of.kind == FORWARD or of.name == "add":
            return forward  # gradients that meet are added, too
        return self._backward(forward, inputs)

    def _of_loss(self, of: Pass) -> Call:
        kernels = self._kernels
        if of.name == "cosine":
            student, teacher = self._random(of.rows, of.width), self._random(of.rows, of.width)
            factors, scale = kernels.cosines(student, teacher)[1], torch.ones((), device=self.device)
            if of.kind == FORWARD:
                return lambda: kernels.cosines(student, teacher)
            return lambda: kernels.cosine_gradients(student, teacher, factors, scale)
        if of.name == "sum":
            part = self._random(of.rows, of.width)
            total = self._random(of.rows, of.width, dtype=torch.float32 if of.bytes == 4 else None)
            return lambda: kernels.add_(total, part) if of.bytes == 4 else total.add_(part)
        if of.name == "scaled":
            total, factor = self._random(of.rows, of.width, dtype=torch.float32), torch.full((), 0.5)
            return lambda: kernels.scaled(total, factor.to(self.device), self.dtype)
        return self._logits(of)

    def _logits(self, of: Pass) -> Call:
        student = self._random(of.rows, of.width)
        teacher = self._random(of.rows, of.width) if of.name == "loss" else None
        labels = torch.randint(of.width, (of.rows,), device=self.device)
        bias = torch.zeros(of.width, dtype=torch.float32, device=self.device)
        slopes = Slopes(TEMPERATURE, 5.0 * (teacher is not None), 2.0, 0.0, 0.0)
        return lambda: self._kernels.loss_rows_(student, teacher, labels, None, slopes, bias, True)

    def _update(self) -> float:
        parameter = nn.Parameter(self._random(UPDATED, dtype=torch.float32))
        parameter.grad = self._random(UPDATED, dtype=torch.float32)
        adam = torch.optim.AdamW([parameter], lr=1e-4, fused=True)
        return self._time(lambda: adam.step, turns=1) / UPDATED

    def _stream(self) -> float:
        def make() -> Call:
            a, b = (self._random(STREAMED, dtype=torch.float32) for _ in range(2))
            return lambda: a.add_(b)

        return self._time(make, turns=2) / (3 * 4 * STREAMED)

    def _launch(self) -> float:
        """Of an operation on next to nothing, modules and autograd included; counted as a step's are."""
        layers = nn.Sequential(*(part for _ in range(8) for part in (nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8))))
        layers.to(self.device, self.dtype)
        rows = self._random(2, 8)

        def step() -> None:
            layers(rows).sum().backward()
            layers.zero_grad()

        # A product with its gradients and a bias gradient, an activation and a norm with theirs: 8 each.
        return self._time(lambda: step, turns=1) / (8 * 8)


def measured(items: dict[str, Item], bench: Bench) -> Iterator[tuple[str, float]]:
    """Key and seconds of a unit of each item, one after the other."""
    for name, item in items.items():
        yield name, bench.seconds_a_unit(item)
