"""How many rows of logits are held at once."""

from __future__ import annotations

import os
from functools import cache
from typing import NamedTuple

import torch

# Of a GPU's memory: 2,048 rows of BERT's vocabulary in 16 bits on 32 GB and more, half of it on 16 GB. Larger chunks
# make no product faster.
SHARE_OF_GPU, MOST_ON_GPU = 1 / 128, 256 * 2**20
# On a CPU products of some hundred rows run at full speed and more memory is only more pages to touch. Weight gradients
# of 16 bits are summed over chunks by a pass of their own, which longer chunks make rarer.
SHARE_OF_RAM, MOST_ON_CPU = 1 / 64, {True: 256 * 2**20, False: 64 * 2**20}  # by whether logits have 16 bits
BLOCK_ON_CPU, BLOCK_ROWS_ON_CPU = 64 * 2**20, 256
LONG_ON_CPU = 1536  # rows from which on a product of all is faster than of blocks; between the two it is slower
ROWS_TOGETHER = 8  # rows are counted in these, which matrix units like


class Sizes(NamedTuple):
    """Rows of logits that are held or multiplied at once."""

    chunk: int  # of the student, held until their gradient has been multiplied
    block: int  # of the teacher, held until they have been compared
    piece: int  # of the gradient, multiplied by the weight


def sizes(rows: int, vocabulary: int, bytes_per_logit: int, device: torch.device) -> Sizes:
    """The fewest even chunks that keep to the device's share of memory (to the next eight rows), and blocks.

    ``bytes_per_logit`` is what a kernel needs for one, of student or teacher. A function of shapes and of the device's
    size, not of what happens to be free: sums over chunks must come out alike in a run that is resumed.
    """
    return _sizes(rows, vocabulary, bytes_per_logit, device.type, _bytes(device))


def sizes_on(kind: str, memory: int, rows: int, vocabulary: int, bytes_per_logit: int) -> Sizes:
    """The same for a device that need not be here: its type, cuda or cpu, and the bytes of its memory."""
    return _sizes(rows, vocabulary, bytes_per_logit, kind, _share(kind, memory))


def _sizes(rows: int, vocabulary: int, bytes_per_logit: int, kind: str, most: int) -> Sizes:
    if kind == "cuda":
        chunk = _even(rows, most // 2 // (vocabulary * bytes_per_logit))
        return Sizes(chunk, chunk, chunk)
    chunk = _even(rows, min(most, MOST_ON_CPU[bytes_per_logit < 4]) // (vocabulary * bytes_per_logit))
    block = _even(chunk, min(BLOCK_ROWS_ON_CPU, min(most, BLOCK_ON_CPU) // (vocabulary * bytes_per_logit)))
    return Sizes(chunk, block, chunk if chunk >= LONG_ON_CPU else block)


def _even(rows: int, most: int) -> int:
    parts = -(-rows // max(most, 1)) or 1
    even = -(-rows // parts)
    return max(min(-(-even // ROWS_TOGETHER) * ROWS_TOGETHER, rows), 1)


def _share(kind: str, memory: int) -> int:
    return min(MOST_ON_GPU, int(memory * SHARE_OF_GPU)) if kind == "cuda" else int(memory * SHARE_OF_RAM)


@cache
def _bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return _share("cuda", torch.cuda.get_device_properties(device).total_memory)
    return _share("cpu", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
