"""Stores made of stores, and of what Megatron-LM and GPT-NeoX leave."""

from __future__ import annotations

import os
import shutil
import string
import struct
from pathlib import Path

import numpy as np
import pytest
from stores import FILES, LARGE, SMALL, build, contents, flip, killed, origin, texts, toy
from transformers import BertTokenizerFast

from distil.data import joining
from distil.data.joining import adopt, merge
from distil.data.store import Store
from distil.data.store_meta import HEADER
from distil.data.tokenizer import fingerprint
from distil.errors import ConfigError, DataError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase]


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizerFast:
    return BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)})


def write_pair(prefix: Path, sequences: list[list[int]], bounds: list[int], dtype: str = "<u2") -> None:
    """A .bin/.idx pair, byte by byte as Megatron-LM's indexed_dataset.py lays it out."""
    sizes = [len(sequence) for sequence in sequences]
    width = np.dtype(dtype).itemsize
    index = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, {"<u2": 8, "<i4": 4}[dtype], len(sizes), len(bounds))
    index += struct.pack(f"<{len(sizes)}i", *sizes)
    index += struct.pack(f"<{len(sizes)}q", *(width * sum(sizes[:i]) for i in range(len(sizes))))
    index += struct.pack(f"<{len(bounds)}q", *bounds)
    Path(f"{prefix}.idx").write_bytes(index)
    Path(f"{prefix}.bin").write_bytes(b"".join(np.array(s, dtype).tobytes() for s in sequences))


PAIR = [[2, 5, 6, 3], [], [7, 8, 9, 10, 11], [12], [2, 30, 3]]  # two documents, an empty sequence among them


# --- plain pairs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<u2", "<i4"])
def test_a_pair_of_megatron_is_a_store_once_it_has_a_tokenizer(tmp_path, tokenizer, dtype):
    prefix = tmp_path / "m"
    write_pair(prefix, PAIR, [0, 3, 5], dtype)
    before = {suffix: Path(f"{prefix}{suffix}").read_bytes() for suffix in (".bin", ".idx")}
    with pytest.raises(DataError, match=r"a plain \.bin/\.idx pair.*binarize\.py adopt .*m --tokenizer"):
        Store.open(prefix)
    store = adopt(str(prefix), tokenizer)
    assert [store.sequence(i).tolist() for i in range(5)] == PAIR
    assert store.at(np.arange(4)).tolist() == [3, 4, 0, 2]  # by length; what is empty is never trained on
    assert (store.lengths.sequences, store.tokens, store.meta.bounds) == (4, 13, 3)
    assert store.token_counts[[2, 3, 5, 30]].tolist() == [2, 2, 1, 1]
    store.check_tokenizer(fingerprint(tokenizer), "itself")
    store.verify()
    assert {suffix: Path(f"{prefix}{suffix}").read_bytes() for suffix in before} == before
    with pytest.raises(DataError, match="exists already: this is a store"):
        adopt(str(prefix), tokenizer)
    assert adopt(str(prefix), tokenizer, overwrite=True).fingerprint == store.fingerprint


def test_a_pair_written_by_deepspeed(tmp_path, tokenizer):
    import torch
    from deepspeed.runtime.data_pipeline.data_sampling.indexed_dataset import MMapIndexedDatasetBuilder

    sequences = [s % len(WORDS) for s in toy(30)]
    builder = MMapIndexedDatasetBuilder(f"{tmp_path}/d.bin", dtype=np.int32)
    for sequence in sequences:
        builder.add_item(torch.from_numpy(sequence))
    builder.end_document()
    builder.finalize(f"{tmp_path}/d.idx")
    store = adopt(f"{tmp_path}/d", tokenizer)
    assert [store.sequence(i).tolist() for i in range(30)] == [s.tolist() for s in sequences]


def test_a_pair_of_another_tokenizer_is_refused(tmp_path, tokenizer):
    write_pair(tmp_path / "m", [[2, 5, 3], [2, 31, 3]], [0, 2])
    with pytest.raises(DataError, match=r"m\.bin: id at byte 8 is 31, expected '0 to 30'"):
        adopt(f"{tmp_path}/m", tokenizer)
    assert sorted(os.listdir(tmp_path)) == ["m.bin", "m.idx"]


def test_a_damaged_pair_is_refused(tmp_path, tokenizer):
    write_pair(tmp_path / "m", PAIR, [0, 3, 5])
    index = Path(f"{tmp_path}/m.idx")
    whole = index.read_bytes()
    index.write_bytes(whole[:54] + struct.pack("<q", 4) + whole[62:])  # the first offset
    with pytest.raises(DataError, match="offsets are not the sums of its sizes"):
        adopt(f"{tmp_path}/m", tokenizer)
    index.write_bytes(whole)
    Path(f"{tmp_path}/m.bin").write_bytes(bytes(24))
    with pytest.raises(DataError, match=r"m\.bin: size in bytes is 24, expected 26"):
        adopt(f"{tmp_path}/m", tokenizer)
    with pytest.raises(DataError, match=r"x\.bin: no such file"):
        adopt(f"{tmp_path}/x", tokenizer)


def test_a_pair_too_narrow_for_its_tokenizer_is_refused(tmp_path):
    write_pair(tmp_path / "m", PAIR, [0, 3, 5])
    wide = BertTokenizerFast(vocab={word: i for i, word in enumerate([*WORDS, *map(str, range(1 << 16))])})
    with pytest.raises(DataError, match=r"m\.idx: uint16 cannot hold the 65567 ids of tokenizer"):
        adopt(f"{tmp_path}/m", wide)
    assert sorted(os.listdir(tmp_path)) == ["m.bin", "m.idx"]


def test_a_build_that_has_not_ended_is_not_adopted(tmp_path, tokenizer):
    write_pair(tmp_path / "m", PAIR, [0, 3, 5])
    (tmp_path / "m.building").mkdir()
    (tmp_path / "m.building" / "journal.json").write_text('{"sealed": true}')
    with pytest.raises(DataError, match="holds an unfinished build"):
        adopt(f"{tmp_path}/m", tokenizer)


# --- merging -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("vocab_size", [SMALL, LARGE])
@pytest.mark.parametrize("tokens", [1, 100, 1 << 21])
def test_merged_stores_are_one_after_the_other(tmp_path, monkeypatch, vocab_size, tokens):
    monkeypatch.setattr(joining, "TOKENS", tokens)
    monkeypatch.setattr("distil.data.store_writer.ENTRIES", 7)
    parts = [toy(count, vocab_size) for count in (20, 1, 33)]
    stores = [build(tmp_path / f"p{i}", part, origin(vocab_size)) for i, part in enumerate(parts)]
    merged = merge([store.prefix for store in stores], f"{tmp_path}/all")
    together = [sequence for part in parts for sequence in part]
    build(tmp_path / "wanted", together, origin(vocab_size))
    assert contents(tmp_path / "all") == contents(tmp_path / "wanted")
    assert np.array_equal(merged.token_counts, sum(store.token_counts for store in stores))


def test_merging_leaves_empty_sequences_out(tmp_path, tokenizer):
    write_pair(tmp_path / "m", PAIR, [0, 3, 5])
    write_pair(tmp_path / "n", [[], [2, 3]], [0, 2])
    for name in "mn":
        adopt(f"{tmp_path}/{name}", tokenizer)
    merged = merge([f"{tmp_path}/m", f"{tmp_path}/n"], f"{tmp_path}/all")
    assert [merged.sequence(i).tolist() for i in range(len(merged))] == [*filter(None, PAIR), [2, 3]]


@pytest.mark.parametrize("moved", range(len(FILES)))
def test_an_interrupted_publication_is_done_again_by_the_same_command(tmp_path, monkeypatch, moved):
    for name, count in (("one", 5), ("two", 6), ("all", 3)):
        build(tmp_path / name, texts(count))
    inputs, out, real = [f"{tmp_path}/one", f"{tmp_path}/two"], f"{tmp_path}/all", os.replace
    calls = 0

    def interrupted(source: str, target: str) -> None:
        nonlocal calls
        if str(target).startswith(f"{out}.") and not str(target).startswith(f"{out}.building"):
            calls += 1
            if calls == moved + 1:
                raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        merge(inputs, out, overwrite=True)
    monkeypatch.setattr(os, "replace", real)
    with pytest.raises(DataError, match="its build has not ended; repeat the command"):
        Store.open(out)
    merged = merge(inputs, out, overwrite=True)
    assert len(merged) == 11 and not Path(f"{out}.building").exists()
    merged.verify()


def test_what_cannot_be_merged(tmp_path):
    one = build(tmp_path / "one", texts(5))
    build(tmp_path / "foreign", texts(5), origin(name="cased", fingerprint="0" * 64))
    before = contents(tmp_path / "one")
    with pytest.raises(DataError, match=r"foreign: built with tokenizer cased .*toy of .*one"):
        merge([f"{tmp_path}/one", f"{tmp_path}/foreign"], f"{tmp_path}/all")
    for prefixes in ([one.prefix], [one.prefix, one.prefix], [one.prefix, f"{tmp_path}/../{tmp_path.name}/one"]):
        with pytest.raises(ConfigError, match="two stores or more, each once"):
            merge(prefixes, f"{tmp_path}/all")
    build(tmp_path / "two", texts(6))
    with pytest.raises(ConfigError, match="merge cannot write .*one, which it reads"):
        merge([f"{tmp_path}/one", f"{tmp_path}/two"], f"{tmp_path}/one", overwrite=True)
    build(tmp_path / "all-heldout", texts(3))
    with pytest.raises(DataError, match="all-heldout: a held-out store of another build"):
        merge([f"{tmp_path}/one", f"{tmp_path}/two"], f"{tmp_path}/all")
    for suffix in FILES:
        os.remove(f"{tmp_path}/all-heldout{suffix}")
    build(tmp_path / "all", texts(2))
    with pytest.raises(DataError, match="exists already"):
        merge([f"{tmp_path}/one", f"{tmp_path}/two"], f"{tmp_path}/all")
    assert contents(tmp_path / "one") == before
    assert sorted(os.listdir(tmp_path)) == sorted(n + s for n in ("one", "two", "foreign", "all") for s in FILES)


@pytest.mark.parametrize("at", [".bin", ".idx up", ".idx down"])
def test_damage_is_not_merged_into_a_store_that_vouches_for_it(tmp_path, at):
    build(tmp_path / "good", toy(5))
    size = int(build(tmp_path / "bad", toy(20)).sizes[3])
    bits = {".bin": 1, ".idx up": ~size & (size + 1), ".idx down": size & -size}[at]  # makes a size larger, or smaller
    flip(f"{tmp_path}/bad{at[:4]}", 0 if at == ".bin" else HEADER.size + 4 * 3, bits)
    with pytest.raises(DataError, match=rf"bad\{at[:4]}: sha256"):
        merge([f"{tmp_path}/good", f"{tmp_path}/bad"], f"{tmp_path}/all")
    assert not list(tmp_path.glob("all*"))


# --- killed --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["merge", "adopt"])
def test_killed_at_any_step_the_same_command_ends_in_the_same_bytes(tmp_path, tokenizer, command):
    parts = [build(tmp_path / name, toy(count)).prefix for name, count in (("a", 20), ("b", 5))]
    folder, prefix, outcomes = tmp_path / "out", f"{tmp_path}/out/s", []
    job = (lambda: merge(parts, prefix)) if command == "merge" else (lambda: adopt(prefix, tokenizer))
    for after in range(-1, 1000):  # -1: never
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if command == "adopt":
            write_pair(Path(prefix), PAIR, [0, 3, 5])
        died = killed(job, after)
        if after < 0:
            wanted = contents(prefix)
            continue
        if not died:
            break
        try:
            Store.open(prefix).verify()
            outcomes.append("whole")
        except DataError as error:
            outcomes.append("none")
            assert any(part in str(error) for part in ("no token store", "has not ended", "a plain"))
        try:
            job()
        except DataError as error:
            assert "exists already" in str(error) and outcomes[-1] == "whole"
        assert contents(prefix) == wanted
    assert len(outcomes) > 20 and set(outcomes) == {"whole", "none"}


def test_an_adoption_is_not_finished_for_a_pair_that_has_changed(tmp_path, tokenizer):
    steps, adopted = 0, lambda **options: adopt(f"{tmp_path}/m", tokenizer, **options)
    while not Path(f"{tmp_path}/m.building/journal.json").exists():  # until it is sealed, but not published
        write_pair(tmp_path / "m", [[2, 5, 3]], [0, 1])
        assert killed(adopted, steps)
        steps += 1
    write_pair(tmp_path / "m", [[2, 9, 3]], [0, 1])
    with pytest.raises(DataError, match="holds an unfinished build; .*--overwrite"):
        adopted()
    adopted(overwrite=True).verify()
