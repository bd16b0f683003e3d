"""Writing and sealing: what is refused, what a position keeps, the order on disk in any number of chunks."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from stores import FILES, SMALL, append, build, contents, origin, toy

from distil.data import store_writer
from distil.data.draft import Draft
from distil.data.store import Store
from distil.data.store_writer import StoreWriter, seal
from distil.errors import DataError


@pytest.mark.parametrize("ids", [[-1], [SMALL], [1] * 129])
def test_unusable_ids_are_refused_and_leave_nothing(tmp_path, ids):
    with pytest.raises(DataError), Draft({"store": str(tmp_path / "s")}) as draft:
        writer = StoreWriter(draft, "store", origin())
        append(writer, [[1, 2]])
        append(writer, [ids])
    assert os.listdir(tmp_path) == []


def test_an_empty_sequence_is_refused(tmp_path):
    with pytest.raises(DataError, match="a sequence of 0 to 1 ids"), Draft({"store": str(tmp_path / "s")}) as draft:
        StoreWriter(draft, "store", origin()).append(np.array([1]), np.array([1, 0], np.int32))


def test_a_store_of_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match="at least one sequence"), Draft({"store": str(tmp_path / "s")}) as draft:
        StoreWriter(draft, "store", origin()).seal()
    assert os.listdir(tmp_path) == []


def test_overwriting_is_refused_unless_asked_for(tmp_path):
    before = build(tmp_path / "s", [[1, 2]])
    with pytest.raises(DataError, match="--overwrite"):
        build(tmp_path / "s", [[3]])
    assert build(tmp_path / "s", [[3]], overwrite=True).sequence(0).tolist() == [3]
    assert before.sequence(0).tolist() == [1, 2]  # a reader of the old store keeps what it mapped
    assert sorted(os.listdir(tmp_path)) == sorted("s" + suffix for suffix in FILES)


def test_chunks_do_not_show(tmp_path, monkeypatch):
    sequences = toy(500)
    build(tmp_path / "whole", sequences)
    monkeypatch.setattr(store_writer, "ENTRIES", 7)
    monkeypatch.setattr(store_writer, "CHUNK", 11)
    monkeypatch.setattr("distil.data.store.CHUNK", 64)
    store = build(tmp_path / "parts", sequences)
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    order = store.at(np.arange(500))
    assert order.tolist() == sorted(range(500), key=lambda i: (len(sequences[i]), i))
    assert np.array_equal(np.fromfile(f"{tmp_path}/parts.order", "<u4"), order)
    store.verify()


def test_a_position_drops_what_was_written_beyond(tmp_path):
    sequences = toy(40)
    build(tmp_path / "whole", sequences)
    with Draft({"store": str(tmp_path / "s")}) as draft:
        writer = StoreWriter(draft, "store", origin())
        append(writer, sequences[:25])
        position = writer.sync()
        append(writer, toy(9))  # as if killed after this, with the position as the last that was noted
        writer.close()
        again = StoreWriter(draft, "store", origin(), position)
        append(again, sequences[25:])
        again.seal()
        draft.publish()
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


def test_a_draft_shorter_than_its_position_is_refused(tmp_path):
    with (
        pytest.raises(DataError, match="shorter than its journal says"),
        Draft({"store": str(tmp_path / "s")}) as draft,
    ):
        writer = StoreWriter(draft, "store", origin())
        append(writer, toy(5))
        writer.close()
        StoreWriter(draft, "store", origin(), (10**6, 10**4))


@pytest.mark.parametrize(
    ("suffix", "data", "said"),
    [
        (".bin", np.array([1, 2], "<u2").tobytes(), r"\.bin: size in bytes"),
        (".bin", np.array([1, 2, SMALL], "<u2").tobytes(), r"\.bin: id at byte 4 is 300"),
    ],
)
def test_sealing_looks_at_what_the_disk_gives(tmp_path, suffix, data, said):
    build(tmp_path / "s", [[1, 2, 3]])
    Path(f"{tmp_path}/s{suffix}").write_bytes(data)
    with pytest.raises(DataError, match=said):
        seal(f"{tmp_path}/s.bin", f"{tmp_path}/s.idx", f"{tmp_path}/new", origin())
    assert not Path(f"{tmp_path}/new.json").exists()


def test_sizes_are_mapped_not_read(tmp_path):
    store = build(tmp_path / "s", toy(100))
    assert not store.sizes.flags.owndata and not store.sizes.flags.writeable
    assert Store.open(tmp_path / "s").sizes.tolist() == store.sizes.tolist()
