"""How many rows of logits are held at once: they cover all rows, keep to the memory, and never depend on the moment."""

from __future__ import annotations

import math
import os

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from distil.kernels import chunks
from distil.kernels.chunks import (
    BLOCK_ON_CPU,
    BLOCK_ROWS_ON_CPU,
    LONG_ON_CPU,
    MOST_ON_CPU,
    ROWS_TOGETHER,
    sizes,
    sizes_on,
)

CPU = torch.device("cpu")
MIB = 2**20
TYPES = st.sampled_from([2, 4, 8])  # bytes of a logit
problems = given(rows=st.integers(0, 200_000), vocabulary=st.integers(1, 20_000_000), bytes_per_logit=TYPES)


def most_rows(vocabulary: int, bytes_per_logit: int, budget: int) -> int:
    """Rows that fit, counted in eights, as they are; one row, or eight, where not even those fit."""
    rows = max(min(chunks._bytes(CPU), budget) // (vocabulary * bytes_per_logit), 1)
    return math.ceil(rows / ROWS_TOGETHER) * ROWS_TOGETHER


@problems
@example(rows=0, vocabulary=30_522, bytes_per_logit=2)
@example(rows=1, vocabulary=1, bytes_per_logit=8)
@example(rows=1000, vocabulary=20_000_000, bytes_per_logit=8)  # a row is larger than the budget
def test_chunks_cover_the_rows_and_hold_their_blocks_and_pieces(rows, vocabulary, bytes_per_logit):
    held = sizes(rows, vocabulary, bytes_per_logit, CPU)
    assert 1 <= held.chunk <= max(rows, 1)
    assert 1 <= held.block <= held.chunk and 1 <= held.piece <= held.chunk
    # Whole eights, which matrix units like, unless that is more than there is.
    assert held.chunk % ROWS_TOGETHER == 0 or held.chunk == max(rows, 1)
    assert held.block % ROWS_TOGETHER == 0 or held.block == held.chunk


@problems
@example(rows=20, vocabulary=600_000, bytes_per_logit=8)  # 13 rows fit: two parts of 10, in eights of 16
def test_memory_keeps_to_the_budget(rows, vocabulary, bytes_per_logit):
    held = sizes(rows, vocabulary, bytes_per_logit, CPU)
    assert held.chunk <= most_rows(vocabulary, bytes_per_logit, MOST_ON_CPU[bytes_per_logit < 4])
    assert held.block <= min(most_rows(vocabulary, bytes_per_logit, BLOCK_ON_CPU), BLOCK_ROWS_ON_CPU)


@problems
def test_chunks_are_the_fewest_and_even(rows, vocabulary, bytes_per_logit):
    """Each chunk reads and writes the weight's gradient once more; one of a few rows would do so for little."""
    held = sizes(rows, vocabulary, bytes_per_logit, CPU)
    budget = min(chunks._bytes(CPU), MOST_ON_CPU[bytes_per_logit < 4])
    fewest = math.ceil(rows / max(budget // (vocabulary * bytes_per_logit), 1))
    assert math.ceil(rows / held.chunk) <= fewest
    if fewest:
        assert held.chunk < rows / fewest + ROWS_TOGETHER  # no larger than an even share, but for the eights


@problems
def test_the_products_of_a_chunk_are_whole_or_of_blocks(rows, vocabulary, bytes_per_logit):
    held = sizes(rows, vocabulary, bytes_per_logit, CPU)
    assert held.piece == (held.chunk if held.chunk >= LONG_ON_CPU else held.block)


@problems
def test_the_same_each_time(rows, vocabulary, bytes_per_logit):
    """Sums over chunks come out alike in a run that is resumed, however much memory is free by then."""
    held = sizes(rows, vocabulary, bytes_per_logit, CPU)
    chunks._bytes.cache_clear()  # as another process would
    assert sizes(rows, vocabulary, bytes_per_logit, CPU) == held


def test_temporaries_keep_to_the_device_share():
    """Torch's own operations need several times a logit's bytes."""
    for bytes_per_logit in (14, 16, 32):
        held = sizes(100_000, 30_522, bytes_per_logit, CPU)
        assert held.chunk <= most_rows(30_522, bytes_per_logit, chunks._bytes(CPU))


@pytest.mark.skipif(chunks._bytes(CPU) < 256 * MIB, reason="this machine's share is smaller: less than 16 GiB")
@pytest.mark.parametrize(
    ("rows", "vocabulary", "bytes_per_logit", "wanted"),
    [
        (1024, 30_522, 2, (1024, 256, 256)),  # 60 MiB: at once; the teacher by halves
        (4096, 30_522, 2, (4096, 256, 4096)),  # 238 MiB: at once
        (8192, 30_522, 2, (4096, 256, 4096)),
        (1024, 30_522, 4, (512, 256, 256)),  # 64 MiB are 549 rows of floats
        (1024, 119_547, 2, (1024, 256, 256)),  # 233 MiB; 64 MiB are 280 rows
        (4096, 119_547, 2, (1024, 256, 256)),  # 256 MiB are 1,122 rows
        (7, 30_522, 2, (7, 7, 7)),
        (0, 30_522, 2, (1, 1, 1)),
    ],
)
def test_examples(rows, vocabulary, bytes_per_logit, wanted):
    assert sizes(rows, vocabulary, bytes_per_logit, CPU) == wanted


@pytest.mark.parametrize(("gib", "rows"), [(16, 1024), (32, 2048), (141, 2048)])
def test_of_a_gpu_that_is_not_here_by_its_memory(gib, rows):
    """Rows that the head of the file promises of BERT's vocabulary in 16 bits, to the next even split."""
    held = sizes_on("cuda", gib * 2**30, 64 * rows, 30_522, 2)
    assert rows < held.chunk * 1.01 and held.chunk <= math.ceil(256 * MIB * rows / 2048 / 2 / 61_044 / 8) * 8


def test_of_this_machine_by_its_memory():
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert sizes_on("cpu", memory, 5000, 30_522, 2) == sizes(5000, 30_522, 2, CPU)
