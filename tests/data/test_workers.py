"""Worker processes: results in order for any number of them, and nobody waits for the dead."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator

import numpy as np
import pytest
from letters import letters, tokenizer_of_letters

from distil.data.cutting import Cut, Cutter
from distil.data.pieces import Piece
from distil.data.workers import cut_all
from distil.errors import DataError


@pytest.fixture(scope="module")
def cutter() -> Cutter:
    return Cutter.of(tokenizer_of_letters(), 64, 12, 0.2)


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """A test that hangs fails after a minute; each takes some seconds."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail("hangs"))
    signal.alarm(60)
    yield
    signal.alarm(0)


def pieces(count: int, lines: int) -> Iterator[tuple[int, Piece]]:
    """Pieces under their numbers, of unequal size, so that later ones are done before earlier ones."""
    for i in range(count):
        data = "\n".join(letters(60, 1000 * i + j) for j in range(lines * (1 + 9 * (i % 3 == 0)))).encode()
        yield i, Piece("f", "text", "lines", 0, len(data), data)


def plain(cuts: Iterator[tuple[int, Cut]]) -> list[tuple[int, list[int], list[int]]]:
    return [(key, cut.ids.tolist(), cut.heldout_sizes.tolist()) for key, cut in cuts]


@pytest.mark.parametrize("workers", [2, 3])
def test_results_come_in_the_order_of_the_pieces(cutter, workers):
    assert plain(cut_all(cutter, pieces(10, 20), workers)) == plain(cut_all(cutter, pieces(10, 20), 1))
    assert not multiprocessing.active_children()


def test_no_more_processes_than_pieces_and_none_is_left(cutter):
    cuts = cut_all(cutter, pieces(2, 20), 8)
    next(cuts)
    assert len(multiprocessing.active_children()) == 2
    cuts.close()
    assert not multiprocessing.active_children()
    assert list(cut_all(cutter, pieces(0, 1), 2)) == []


def test_the_input_is_read_a_few_pieces_ahead(cutter):
    read = []
    cuts = cut_all(cutter, ((key, piece) for key, piece in pieces(50, 20) if not read.append(key)), 2)
    for key, _ in cuts:
        assert len(read) <= key + 4  # AHEAD times two workers, this one among them


@pytest.mark.parametrize("victims", [1, 2])
def test_a_worker_killed_while_it_says_what_it_has_done_is_one_error(cutter, victims):
    # A result of 10 * 400 lines is 500 kB, more than a pipe holds (64 kB, a socket 208): with nobody listening, each
    # worker soon stands in the midst of one, where a pool whose workers share a pipe hangs.
    cuts = cut_all(cutter, pieces(60, 400), 2)
    next(cuts)
    for process in multiprocessing.active_children()[:victims]:
        process.kill()
        process.join()
    with pytest.raises(DataError, match="a worker process died"):
        list(cuts)
    assert not multiprocessing.active_children()


def test_what_a_worker_refuses_is_said_as_it_said_it(cutter):
    bad = Piece("f", "text", "lines", 0, 3, b"a\xff\n")
    with pytest.raises(DataError, match="f: line 1, byte 1 is not UTF-8"):
        list(cut_all(cutter, enumerate([bad]), 2))


def test_what_came_before_a_refusal_is_kept(cutter):
    bad = Piece("f", "text", "lines", 0, 3, b"a\xff\n")
    cuts = cut_all(cutter, [*pieces(3, 100), (3, bad)], 2)  # refused while the others are still being cut
    assert [key for key, _ in (next(cuts) for _ in range(3))] == [0, 1, 2]
    with pytest.raises(DataError, match="not UTF-8"):
        next(cuts)


def test_a_defect_in_a_worker_keeps_its_traceback(cutter):
    with pytest.raises(AttributeError) as caught:
        list(cut_all(cutter, [(0, np.zeros(1))], 2))  # no piece at all
    assert any("in _batches" in note for note in caught.value.__notes__)
