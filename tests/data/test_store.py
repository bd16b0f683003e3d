"""The token store: exact round trips, DeepSpeed's reader, and every kind of damage refused."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.data.store import Store, StoreMeta, dtype_for
from distil.data.store_writer import StoreWriter
from distil.errors import DataError

FILES = (".bin", ".idx", ".counts.npy", ".json")
SMALL, LARGE = 300, 119_547  # uint16, and the multilingual vocabulary that needs int32


def writer(prefix, vocab_size=SMALL, **options):
    special = {"pad": 0, "cls": 2, "sep": 3}
    origin = {"tokenizer_name": "toy", "tokenizer_fingerprint": "f" * 64, "special_ids": special, "max_length": 64}
    return StoreWriter(prefix, vocab_size=vocab_size, **origin, **options)


def build(prefix, sequences, vocab_size=SMALL, **options) -> Store:
    with writer(prefix, vocab_size, **options) as out:
        out.append_many(sequences)
    return Store.open(prefix)


def toy(n=20, vocab_size=SMALL) -> list[np.ndarray]:
    draw = np.random.default_rng(n)
    return [draw.integers(0, vocab_size, draw.integers(1, 65)) for _ in range(n)]


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
    with writer(prefix, vocab_size) as out:
        out.append(sequences[0])
        out.append_many(sequences[1:])
    store = Store.open(prefix)
    flat = np.concatenate(sequences)
    assert [store.sequence(i).tolist() for i in range(len(store))] == sequences
    assert store.meta.dtype == dtype_for(vocab_size) == ("uint16" if vocab_size <= 65_536 else "int32")
    assert store.lengths.dtype == np.int32 and store.lengths.tolist() == list(map(len, sequences))
    assert store.tokens == flat.size == out.tokens and store.meta.sequences == len(sequences) == out.sequences
    assert np.array_equal(store.token_counts, np.bincount(flat, minlength=vocab_size))
    indices = data.draw(st.lists(st.integers(0, len(sequences) - 1), max_size=30))
    ids, lengths = store.gather(np.array(indices, dtype=np.int64))
    assert ids.dtype == np.int64 and lengths.dtype == np.int32
    assert ids.tolist() == [i for k in indices for i in sequences[k]]
    assert lengths.tolist() == [len(sequences[k]) for k in indices]
    store.verify()


def test_deepspeed_reads_an_int32_store(tmp_path):
    from deepspeed.runtime.data_pipeline.data_sampling.indexed_dataset import MMapIndexedDataset

    sequences = [*toy(50, LARGE), np.array([LARGE - 1, 0])]
    store = build(tmp_path / "s", sequences, LARGE)
    theirs = MMapIndexedDataset(str(tmp_path / "s"), skip_warmup=True)
    assert len(theirs) == len(store) == 51
    assert all(np.array_equal(theirs[i], sequence) for i, sequence in enumerate(sequences))
    assert theirs.dtype == np.dtype(store.meta.dtype) and theirs.doc_idx.tolist() == list(range(52))


@pytest.mark.parametrize(("vocab_size", "code", "dtype"), [(65_536, 8, "<u2"), (LARGE, 4, "<i4")])
def test_files_are_megatrons_byte_for_byte(tmp_path, vocab_size, code, dtype):
    sequences = [*toy(50, vocab_size), np.array([vocab_size - 1, 0])]
    build(tmp_path / "s", sequences, vocab_size)
    width = np.dtype(dtype).itemsize
    sizes = [len(sequence) for sequence in sequences]
    pointers = [width * sum(sizes[:i]) for i in range(len(sizes))]
    wanted = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code, 51, 52)
    wanted += (
        np.array(sizes, "<i4").tobytes() + np.array(pointers, "<i8").tobytes() + np.arange(52).astype("<i8").tobytes()
    )
    assert Path(f"{tmp_path}/s.idx").read_bytes() == wanted
    assert Path(f"{tmp_path}/s.bin").read_bytes() == np.concatenate(sequences).astype(dtype).tobytes()


def test_ids_beyond_uint16_survive(tmp_path):
    ids = [65_535, 65_536, 119_546]
    store = build(tmp_path / "s", [ids], LARGE)
    assert store.sequence(0).tolist() == ids and store.token_counts[119_546] == 1


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
    with pytest.raises(DataError, match=rf"s{suffix}"):
        Store.open(tmp_path / "s")


def test_no_store_names_path_and_command(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no token store here.*launch/binarize\.py --out .*nowhere"):
        Store.open(tmp_path / "nowhere")


@pytest.mark.parametrize("suffix", [".bin", ".idx", ".counts.npy"])
def test_flipped_byte_is_caught(tmp_path, suffix):
    build(tmp_path / "s", toy())
    path = Path(f"{tmp_path}/s{suffix}")
    whole = path.read_bytes()
    for at in range(0, len(whole), 1 + len(whole) // 60):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(DataError, match=rf"s{suffix}: "):  # at open where cheap, at the latest by verify
            Store.open(tmp_path / "s").verify()
    path.write_bytes(whole)
    Store.open(tmp_path / "s").verify()


def test_id_beyond_vocabulary_is_named(tmp_path):
    store = build(tmp_path / "s", [[1, 2, 3], [4, 5]])
    raw = np.array([1, 2, 3, SMALL, 5], dtype="<u2").tobytes()
    Path(f"{tmp_path}/s.bin").write_bytes(raw)
    # With checksums that agree, so that nothing but the range of ids can tell.
    meta = replace(store.meta, sha256={**store.meta.sha256, "bin": hashlib.sha256(raw).hexdigest()})
    Path(f"{tmp_path}/s.json").write_text(meta.to_json())
    with pytest.raises(DataError, match=r"s\.bin: id at byte 6 is 300, expected '0 to 299'"):
        Store.open(tmp_path / "s").verify()


@pytest.mark.parametrize(
    ("field", "value"),
    [("tokens", "7"), ("sequences", 0), ("dtype", "int8"), ("sha256", {}), ("vocab_size", True), ("format_version", 2)],
)
def test_sidecar_fields_are_checked(tmp_path, field, value):
    good = json.loads(build(tmp_path / "s", toy()).meta.to_json())
    assert StoreMeta.from_json(json.dumps(good), "s.json").to_json() == Path(f"{tmp_path}/s.json").read_text()
    with pytest.raises(DataError, match=f"s.json: field {field}"):
        StoreMeta.from_json(json.dumps({**good, field: value}), "s.json")
    with pytest.raises(DataError, match=f"missing fields .*{field}.*unknown fields .*extra"):
        StoreMeta.from_json(json.dumps({"extra": 1, **{k: v for k, v in good.items() if k != field}}), "s.json")


@pytest.mark.parametrize("ids", [[], [-1], [SMALL], [1] * 65])
def test_writer_refuses_unusable_ids_and_leaves_nothing(tmp_path, ids):
    with pytest.raises(DataError), writer(tmp_path / "s") as out:
        out.append([1, 2])
        out.append(ids)
    assert os.listdir(tmp_path) == []


def test_overwriting_is_refused_unless_asked_for(tmp_path):
    before = build(tmp_path / "s", [[1, 2]])
    with pytest.raises(DataError, match="--overwrite"):
        writer(tmp_path / "s")
    assert build(tmp_path / "s", [[3]], overwrite=True).sequence(0).tolist() == [3]
    assert before.sequence(0).tolist() == [1, 2]  # a reader of the old store keeps what it mapped
    assert sorted(os.listdir(tmp_path)) == sorted("s" + suffix for suffix in FILES)


def test_of_two_builders_one_wins_whole(tmp_path):
    first, second = writer(tmp_path / "s"), writer(tmp_path / "s")
    first.append([1, 2])
    second.append([9])
    with first:
        pass
    with pytest.raises(DataError, match="exists already"), second:
        pass
    assert Store.open(tmp_path / "s").sequence(0).tolist() == [1, 2]
    assert len(os.listdir(tmp_path)) == 4


def test_fingerprint_and_tokenizer(tmp_path):
    one, same, other = (build(tmp_path / name, [[i]]) for name, i in (("a", 1), ("b", 1), ("c", 2)))
    assert one.fingerprint == same.fingerprint != other.fingerprint
    one.check_tokenizer("f" * 64, "any name")
    with pytest.raises(DataError, match=r"toy .*cased"):
        one.check_tokenizer("0" * 64, "cased")


KILLED = """
import os, signal, sys
sys.path[:0] = {path!r}
from test_store import toy, writer
replaced = 0
def dying(source, target, real=os.replace):
    global replaced
    if replaced == {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    replaced += 1
    real(source, target)
os.replace = dying
with writer({prefix!r}, overwrite={overwrite}) as out:
    for sequence in toy():
        out.append(sequence)
    if {after} < 0:
        out._bin.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("after", "overwrite"), [(-1, False), (0, False), (2, False), (3, False), (3, True)])
def test_killed_builder_leaves_no_store(tmp_path, after, overwrite):
    """Killed while appending (-1) or when so many of the four files are in place: the sidecar is the last."""
    prefix = tmp_path / "s"
    if overwrite:
        build(prefix, toy(7))
    code = KILLED.format(path=[str(Path(__file__).parent)], prefix=str(prefix), after=after, overwrite=overwrite)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert os.listdir(tmp_path), "the killed builder had not begun to write"
    with pytest.raises(DataError, match="no token store"):
        Store.open(prefix)
    build(prefix, toy(), overwrite=True)
    build(tmp_path / "clean", toy())
    for suffix in FILES:
        assert Path(f"{prefix}{suffix}").read_bytes() == Path(f"{tmp_path}/clean{suffix}").read_bytes()


def test_full_disk_is_one_error_and_no_store(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"), writer(tmp_path / "s") as out:
        out.append([1])
    assert os.listdir(tmp_path) == []
