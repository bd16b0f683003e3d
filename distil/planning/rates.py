"""How long a device takes for one piece of work: by its data sheet, or by what was measured on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from distil.planning.machines import Device
from distil.planning.passes import Attention, Pass
from distil.planning.products import Product

ITEMSIZE = {"fp16": 2, "bf16": 2, "fp32": 4}
# Bytes a parameter that an optimiser step reads and writes: 16-bit gradient to fp32 (6), its norm (4), unscaling and
# clipping (8); weight, gradient and two moments read, all but the gradient written, in fp32 (28); the 16-bit copy (6).
PREPARE_BYTES, ADAM_BYTES, COPY_BYTES = 18, 28, 6
# The same before the gradients are reduced, by every rank of all of them: laid end to end, cast for the way and back,
# and put back in place, which DeepSpeed does on a single rank, too.
LAID_OUT_BYTES = {"fp16": 8, "bf16": 28, "fp32": 16}


class Rates(Protocol):
    """Seconds of a device in one precision."""

    device: Device
    precision: str

    def product(self, product: Product) -> float:
        """Of a matrix product, all its times."""

    def attention(self, attention: Attention) -> float:
        """Of a model's attention kernels."""

    def pass_(self, of: Pass) -> float:
        """Of a pass, all its times."""

    def update(self, parameters: float) -> float:
        """Of Adam's update of so many parameters in fp32."""

    def stream(self, bytes: float) -> float:
        """Of reading and writing so many bytes in all."""

    def launches(self, count: float) -> float:
        """Of the host's part in so many operations."""


# A product is made in tiles of the result, which multiprocessors take in waves; of few tiles the inner dimension is
# split among several, down to so many elements each. NVIDIA, "Matrix Multiplication Background User's Guide", sections
# "Tile Quantization" and "Wave Quantization"; the sizes are usual ones, assumed.
TILE, LEAST_INNER = 128, 512


@dataclass(frozen=True)
class Sheet:
    """By the data sheet: work takes as long as its FLOPs or its bytes do, whichever is more."""

    device: Device
    precision: str

    @property
    def _itemsize(self) -> int:
        return ITEMSIZE[self.precision]

    def product(self, product: Product) -> float:
        one = product.rows * product.inner + product.inner * product.columns + product.rows * product.columns
        # Of those within attention a kernel has many at once.
        full = 1.0 if product.inside else filled(product, self.device.multiprocessors)
        seconds = self._compute(product.flops) / full
        return max(seconds, self.stream(one * product.times * self._itemsize))

    def attention(self, attention: Attention) -> float:
        return max(self._compute(attention.flops), self.stream(attention.traffic(self._itemsize)))

    def pass_(self, of: Pass) -> float:
        return self.stream(of.traffic(self._itemsize))

    def update(self, parameters: float) -> float:
        return self.stream(parameters * ADAM_BYTES)

    def stream(self, bytes: float) -> float:
        return bytes / (self.device.bandwidth * self.device.stream.share)

    def launches(self, count: float) -> float:
        return count * self.device.launch_seconds

    def _compute(self, flops: float) -> float:
        return flops / (self.device.flops[self.precision] * self.device.matrix.share)


def filled(product: Product, multiprocessors: int) -> float:
    """Share of a GPU that a product fills: whole tiles, in whole waves."""
    tiles = -(-product.rows // TILE) * -(-product.columns // TILE)
    parts = max(1, min(multiprocessors // tiles, product.inner // LEAST_INNER))
    waves = -(-tiles * parts // multiprocessors)
    return product.rows * product.columns / (TILE * TILE * tiles) * tiles * parts / (waves * multiprocessors)
