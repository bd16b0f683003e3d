"""The token store as it is read: exact round trips, other programs' readers, and every kind of damage refused."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import FILES, LARGE, SMALL, build, contents, flip, origin, toy

from distil.data.store import Store
from distil.data.store_meta import HEADER, StoreMeta, dtype_for
from distil.errors import DataError


@st.composite
def sequence_lists(draw):
    vocab_size = draw(st.sampled_from([2, SMALL, 65_536, 65_537, LARGE]))
    ids = st.one_of(st.integers(0, vocab_size - 1), st.just(vocab_size - 1))
    return vocab_size, draw(st.lists(st.lists(ids, min_size=1, max_size=64), min_size=1, max_size=20))


@settings(max_examples=60, deadline=None)
@given(case=sequence_lists(), data=st.data())
def test_round_trip(tmp_path_factory, case, data):
    vocab_size, sequences = case
    prefix = tmp_path_factory.mktemp("store") / "s.v1"  # a dot in the name is no extension
    store = build(prefix, sequences, origin(vocab_size))
    flat = np.concatenate(sequences)
    assert [store.sequence(i).tolist() for i in range(len(store))] == sequences
    assert store.meta.dtype == dtype_for(vocab_size) == ("uint16" if vocab_size <= 65_536 else "int32")
    assert store.sizes.dtype == np.int32 and store.sizes.tolist() == list(map(len, sequences))
    assert store.tokens == flat.size == store.lengths.tokens and store.meta.sequences == len(sequences)
    assert np.array_equal(store.token_counts, np.bincount(flat, minlength=vocab_size))
    by_length = store.at(np.arange(len(store)))
    assert by_length.tolist() == sorted(range(len(sequences)), key=lambda i: (len(sequences[i]), i))
    indices = data.draw(st.lists(st.integers(0, len(sequences) - 1), max_size=30))
    ids, lengths = store.gather(np.array(indices, dtype=np.int64))
    assert ids.dtype == np.int64 and lengths.dtype == np.int32
    assert ids.tolist() == [i for k in indices for i in sequences[k]]
    assert lengths.tolist() == [len(sequences[k]) for k in indices]
    store.verify()


def test_deepspeed_reads_an_int32_store(tmp_path):
    from deepspeed.runtime.data_pipeline.data_sampling.indexed_dataset import MMapIndexedDataset

    sequences = [*toy(50, LARGE), np.array([LARGE - 1, 0])]
    store = build(tmp_path / "s", sequences, origin(LARGE))
    theirs = MMapIndexedDataset(str(tmp_path / "s"), skip_warmup=True)
    assert len(theirs) == len(store) == 51
    assert all(np.array_equal(theirs[i], sequence) for i, sequence in enumerate(sequences))
    assert theirs.dtype == np.dtype(store.meta.dtype) and theirs.doc_idx.tolist() == list(range(52))


@pytest.mark.parametrize(("vocab_size", "code", "dtype"), [(65_536, 8, "<u2"), (LARGE, 4, "<i4")])
def test_files_are_megatrons_byte_for_byte(tmp_path, vocab_size, code, dtype):
    sequences = [*toy(50, vocab_size), np.array([vocab_size - 1, 0])]
    build(tmp_path / "s", sequences, origin(vocab_size))
    sizes = [len(sequence) for sequence in sequences]
    pointers = [np.dtype(dtype).itemsize * sum(sizes[:i]) for i in range(len(sizes))]
    wanted = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, 51, 52)
    wanted += (
        np.array(sizes, "<i4").tobytes() + np.array(pointers, "<i8").tobytes() + np.arange(52).astype("<i8").tobytes()
    )
    assert Path(f"{tmp_path}/s.idx").read_bytes() == wanted
    assert Path(f"{tmp_path}/s.bin").read_bytes() == np.concatenate(sequences).astype(dtype).tobytes()


def test_ids_beyond_uint16_survive(tmp_path):
    ids = [65_535, 65_536, 119_546]
    store = build(tmp_path / "s", [ids], origin(LARGE))
    assert store.sequence(0).tolist() == ids and store.token_counts[119_546] == 1


def test_offsets_beyond_32_bits(tmp_path):
    # Five sequences of 2^30 ids that are holes in a sparse file, and a real one after them, at byte 10 x 2^30.
    long = 2**30
    sizes, last = np.array([3, *[long] * 5, 4], "<i4"), np.array([7, 8, 9, 10], "<u2")
    offsets = 2 * np.cumsum(np.r_[0, sizes[:-1].astype(np.int64)])
    made_of = origin(max_length=long)
    build(tmp_path / "s", [[1, 2, 3], last], made_of)  # for its sidecars; the rest is written by hand
    with open(f"{tmp_path}/s.bin", "r+b") as file:
        file.seek(int(offsets[-1]))
        file.write(last.tobytes())
    header = HEADER.pack(b"MMIDIDX\x00\x00", 1, 8, 7, 8)
    Path(f"{tmp_path}/s.idx").write_bytes(
        header + sizes.tobytes() + offsets.astype("<i8").tobytes() + np.arange(8).astype("<i8").tobytes()
    )
    np.array([0, 6, 1, 2, 3, 4, 5], "<u4").tofile(f"{tmp_path}/s.order")
    counts = np.bincount([1, 2, 3, 7, 8, 9, 10], minlength=SMALL)
    counts[0] = 5 * long
    np.save(f"{tmp_path}/s.counts.npy", counts)
    meta = StoreMeta.from_json(Path(f"{tmp_path}/s.json").read_bytes(), "s.json")
    meta.sha256["counts"] = hashlib.sha256(Path(f"{tmp_path}/s.counts.npy").read_bytes()).hexdigest()
    lengths = [[3, 1], [4, 1], [long, 5]]
    meta = replace(meta, sequences=7, tokens=5 * long + 7, bounds=8, lengths=lengths)
    Path(f"{tmp_path}/s.json").write_text(meta.to_json())
    store = Store.open(tmp_path / "s")
    assert store.tokens > 2**32 and offsets[-1] > 2**33 and os.stat(f"{tmp_path}/s.bin").st_blocks * 512 < 2**20
    assert store.gather(store.at(np.array([0, 1])))[0].tolist() == [1, 2, 3, 7, 8, 9, 10]
    assert store.sequence(6).tolist() == [7, 8, 9, 10]


# --- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FILES)
def test_truncation_is_refused_at_open(tmp_path, suffix):
    build(tmp_path / "s", toy())
    path = Path(f"{tmp_path}/s{suffix}")
    whole = path.read_bytes()
    for size in sorted({0, 1, len(whole) - 1, *range(0, len(whole), 1 + len(whole) // 60)}):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=rf"s{suffix}: .*binarize\.py"):
            Store.open(tmp_path / "s")
    path.write_bytes(whole + b"\0")
    with pytest.raises(DataError):
        Store.open(tmp_path / "s")
    path.unlink()
    with pytest.raises(DataError, match=r"s\.(bin|idx|order|counts\.npy|json)|plain"):
        Store.open(tmp_path / "s")


@pytest.mark.parametrize("at", range(HEADER.size))
def test_every_byte_of_the_header_counts(tmp_path, at):
    build(tmp_path / "s", toy())
    whole = Path(f"{tmp_path}/s.idx").read_bytes()
    for bits in (1, 0x80, 0xFF):
        flip(f"{tmp_path}/s.idx", at, bits)
        field = "magic" if at < 9 else "version" if at < 17 else "dtype" if at == 17 else "size in bytes"
        with pytest.raises(DataError, match=rf"s\.idx: {field}"):
            Store.open(tmp_path / "s")
        Path(f"{tmp_path}/s.idx").write_bytes(whole)
    Store.open(tmp_path / "s")


@pytest.mark.parametrize("suffix", [".bin", ".idx", ".order", ".counts.npy"])
def test_a_flipped_byte_is_caught(tmp_path, suffix):
    build(tmp_path / "s", toy())
    path = Path(f"{tmp_path}/s{suffix}")
    size = path.stat().st_size
    for at in range(0, size, 1 + size // 60):
        flip(path, at)
        with pytest.raises(DataError, match=rf"s{suffix}: "):  # at open where cheap, at the latest by verify
            Store.open(tmp_path / "s").verify()
        flip(path, at)
    Store.open(tmp_path / "s").verify()


def test_a_flipped_byte_of_the_sidecar_is_caught(tmp_path):
    build(tmp_path / "s", toy())
    whole = contents(tmp_path / "s")[".json"]
    for at in range(len(whole)):
        flip(f"{tmp_path}/s.json", at)
        if not whole[at : at + 1].isspace():  # white space may become other white space, which says the same
            with pytest.raises(DataError, match=r"s\.json: "):
                Store.open(tmp_path / "s")
        flip(f"{tmp_path}/s.json", at)
    Store.open(tmp_path / "s")


@pytest.mark.parametrize("vocab_size", [SMALL, LARGE])
def test_an_id_beyond_the_vocabulary_is_named(tmp_path, vocab_size):
    store = build(tmp_path / "s", [[1, 2, 3], [4, 5]], origin(vocab_size))
    width = np.dtype(store.meta.dtype).itemsize
    raw = np.array([1, 2, 3, vocab_size, 5], dtype=store.meta.dtype).tobytes()
    Path(f"{tmp_path}/s.bin").write_bytes(raw)
    # With checksums that agree, so that nothing but the range of ids can tell.
    meta = replace(store.meta, sha256={**store.meta.sha256, "bin": hashlib.sha256(raw).hexdigest()})
    Path(f"{tmp_path}/s.json").write_text(meta.to_json())
    broken = Store.open(tmp_path / "s")
    said = rf"s\.bin: id at byte {3 * width} is {vocab_size}, expected '0 to {vocab_size - 1}'"
    with pytest.raises(DataError, match=said):
        broken.verify()
    with pytest.raises(DataError, match=said):  # and by training, which does not read all of it first
        broken.gather(np.array([0, 1]))
    assert broken.sequence(0).tolist() == [1, 2, 3]


def test_sizes_and_offsets_that_cannot_be_are_found_when_read(tmp_path):
    build(tmp_path / "s", toy())
    whole = Path(f"{tmp_path}/s.idx").read_bytes()
    for at in range(HEADER.size + 3, HEADER.size + 12 * 20, 4):  # the highest byte of each number
        flip(f"{tmp_path}/s.idx", at, 0x80)
        with pytest.raises(DataError, match=r"s\.idx: "):
            Store.open(tmp_path / "s").gather(np.arange(20))
        Path(f"{tmp_path}/s.idx").write_bytes(whole)
    np.full(20, 20, "<u4").tofile(f"{tmp_path}/s.order")
    store = Store.open(tmp_path / "s")
    with pytest.raises(DataError, match=r"s\.order: damaged: sequence 20 of 20"):
        store.gather(store.at(np.array([3])))


@pytest.mark.parametrize(
    ("field", "value"),
    [("tokens", "7"), ("sequences", 0), ("dtype", "int8"), ("sha256", {}), ("vocab_size", True), ("format_version", 1),
     ("lengths", []), ("lengths", [[3, 1], [2, 1]]), ("lengths", [[0, 1]]), ("bounds", -1)],
)  # fmt: skip
def test_sidecar_fields_are_checked(tmp_path, field, value):
    good = json.loads(build(tmp_path / "s", toy()).meta.to_json())
    assert StoreMeta.from_json(json.dumps(good), "s.json").to_json() == Path(f"{tmp_path}/s.json").read_text()
    with pytest.raises(DataError, match=f"s.json: field {field}"):
        StoreMeta.from_json(json.dumps({**good, field: value}), "s.json")
    with pytest.raises(DataError, match=f"missing fields .*{field}.*unknown fields .*extra"):
        StoreMeta.from_json(json.dumps({"extra": 1, **{k: v for k, v in good.items() if k != field}}), "s.json")


def test_a_sidecar_nested_without_end_is_refused(tmp_path):
    build(tmp_path / "s", toy())
    Path(f"{tmp_path}/s.json").write_bytes(b"[" * 100_000)
    with pytest.raises(DataError, match=r"s\.json: not whole JSON"):
        Store.open(tmp_path / "s")


def test_no_store_names_path_and_command(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no token store here.*launch/binarize\.py --out .*nowhere"):
        Store.open(tmp_path / "nowhere")


def test_fingerprint_and_tokenizer(tmp_path):
    one, same, other = (build(tmp_path / name, [[i]]) for name, i in (("a", 1), ("b", 1), ("c", 2)))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    one.check_tokenizer("f" * 64, "any name")
    with pytest.raises(DataError, match=r"toy .*cased"):
        one.check_tokenizer("0" * 64, "cased")
