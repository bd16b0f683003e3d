"""Text to store: the recipe's rules exactly, the held-out split, input formats, and refusals from the command line."""

from __future__ import annotations

import json
import os
import random
import string
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
from transformers import BertTokenizerFast

from distil.data import binarize as module
from distil.data.binarize import binarize, read_dataset, read_text
from distil.data.store import Store
from distil.data.tokenizer import fingerprint
from distil.errors import ConfigError, DataError

ROOT = Path(__file__).parents[2]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CLS, SEP, A = 2, 3, 5
NUMBER = {word: i for i, word in enumerate([*SPECIAL, *string.ascii_lowercase])}  # a letter a token; digits unknown


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizerFast:
    return BertTokenizerFast(vocab=NUMBER)


def run(texts, tokenizer, prefix, **options):
    return binarize(texts, tokenizer, prefix, progress=False, **options)


def stored(prefix) -> list[list[int]]:
    store = Store.open(prefix)
    return [store.sequence(i).tolist() for i in range(len(store))]


def letters(n: int, seed: int = 0) -> str:
    return " ".join(random.Random(seed).choices(string.ascii_lowercase, k=n))


def test_agrees_with_the_tokenizer(tmp_path, tokenizer):
    texts = [letters(10 + i % 40, i) for i in range(2500)]  # more than two batches
    report = run(texts, tokenizer, tmp_path / "s")
    assert stored(tmp_path / "s") == tokenizer(texts).input_ids
    store = Store.open(tmp_path / "s")
    assert (report.texts, report.sequences, report.tokens) == (2500, 2500, store.tokens)
    assert (report.split, report.dropped_short, report.dropped_unknown, report.heldout_texts) == (0, 0, 0, 0)
    assert store.meta.special_ids == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert store.meta.max_length == 512 and store.meta.vocab_size == len(NUMBER)
    store.check_tokenizer(fingerprint(tokenizer), "itself")
    store.verify()


@pytest.mark.parametrize(("raw", "kept"), [(9, False), (10, True)])
def test_short_rule(tmp_path, tokenizer, raw, kept):
    """11 tokens, [CLS] and [SEP] included, are too few and 12 are enough."""
    report = run([letters(20), letters(raw), ""], tokenizer, tmp_path / "s")
    assert [len(ids) for ids in stored(tmp_path / "s")] == [22, 12][: 1 + kept]
    assert report.dropped_short == 2 - kept  # the blank text is short too


@pytest.mark.parametrize(("unknown", "kept"), [(9, True), (10, False), (18, False)])
def test_unknown_rule(tmp_path, tokenizer, unknown, kept):
    """Of 20 tokens, [CLS] and [SEP] included, 10 unknown are half and thus too many."""
    report = run([letters(20), " ".join(["7"] * unknown + ["a"] * (18 - unknown))], tokenizer, tmp_path / "s")
    assert len(stored(tmp_path / "s")) == 1 + kept and report.dropped_unknown == 1 - kept


@pytest.mark.parametrize(
    ("raw", "pieces", "short"),
    [(14, [14], 0), (15, [14], 1), (23, [14], 1), (24, [14, 10], 0), (28, [14, 14], 0), (38, [14, 14, 10], 0)],
)
def test_long_rule(tmp_path, tokenizer, raw, pieces, short):
    """With max_length 16, pieces hold 14 raw ids; each is closed again and its rest judged on its own."""
    text = letters(raw)
    ids = [NUMBER[letter] for letter in text.split()]
    report = run([text], tokenizer, tmp_path / "s", max_length=16)
    expected = [[CLS, *ids[14 * k : 14 * k + size], SEP] for k, size in enumerate(pieces)]
    assert stored(tmp_path / "s") == expected
    assert (report.dropped_short, report.split, report.texts) == (short, raw > 14, 1)


def test_tokenizer_with_truncation_and_padding_is_neither_obeyed_nor_changed(tmp_path):
    tokenizer = BertTokenizerFast(vocab=NUMBER)
    tokenizer("a", truncation=True, max_length=20, padding="max_length")  # between the lengths of the texts below
    before = tokenizer.backend_tokenizer.to_str()
    assert '"max_length":20' in before and '"Fixed":20' in before
    run([letters(30), letters(12)], tokenizer, tmp_path / "s")
    assert [len(ids) for ids in stored(tmp_path / "s")] == [32, 14]
    assert tokenizer.backend_tokenizer.to_str() == before


def test_rebuild_is_identical_whatever_the_batches(tmp_path, tokenizer, monkeypatch):
    texts = [letters(20, i) for i in range(50)]
    run(texts, tokenizer, tmp_path / "a")
    monkeypatch.setattr(module, "_BATCH_CHARACTERS", 100)  # cuts the batches to three texts
    run(iter(texts), tokenizer, tmp_path / "b")
    for suffix in (".bin", ".idx", ".counts.npy", ".json"):
        assert Path(f"{tmp_path}/a{suffix}").read_bytes() == Path(f"{tmp_path}/b{suffix}").read_bytes()


def test_heldout_split(tmp_path, tokenizer):
    texts = [letters(20, i) for i in range(2000)]
    report = run(texts, tokenizer, tmp_path / "s", heldout_fraction=0.1)
    run(random.Random(1).sample(texts, 2000), tokenizer, tmp_path / "shuffled", heldout_fraction=0.1)
    run(texts, tokenizer, tmp_path / "more", heldout_fraction=0.2)
    train, held = ({tuple(ids) for ids in stored(f"{tmp_path}/s{name}")} for name in ("", "-heldout"))
    assert not train & held
    assert train | held == {tuple(ids) for ids in tokenizer(texts).input_ids}
    assert held == {tuple(ids) for ids in stored(tmp_path / "shuffled-heldout")}
    assert held < {tuple(ids) for ids in stored(tmp_path / "more-heldout")}  # a larger share only adds
    assert report.heldout_texts == report.heldout_sequences == len(held) and report.sequences == len(train)
    assert report.tokens == 22 * len(train) and report.heldout_tokens == 22 * len(held)
    # Binomial(2000, 0.1): mean 200, deviation 13.4; the hash is fixed, so five deviations can never flicker.
    assert abs(len(held) - 200) < 67


def test_heldout_takes_whole_texts(tmp_path, tokenizer):
    texts = [" ".join([letter] * 40) for letter in string.ascii_lowercase]  # each cut into 14 + 14 + 12
    run(texts, tokenizer, tmp_path / "s", heldout_fraction=0.5, max_length=16)
    used = [{ids[1] for ids in stored(f"{tmp_path}/s{name}")} for name in ("", "-heldout")]
    assert used[0] and used[1] and not used[0] & used[1] and len(used[0] | used[1]) == 26


def test_both_stores_or_none(tmp_path, tokenizer):
    with pytest.raises(DataError, match="s-heldout: the input holds no usable sequence"):
        run([letters(20)], tokenizer, tmp_path / "s", heldout_fraction=1e-9)
    assert os.listdir(tmp_path) == []
    run([letters(20, i) for i in range(50)], tokenizer, tmp_path / "s", heldout_fraction=0.5)
    with pytest.raises(DataError, match="s-heldout.*now train on"):
        run([letters(20)], tokenizer, tmp_path / "s", overwrite=True)
    os.remove(tmp_path / "s.json")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(DataError, match="exists already"):
        run([letters(20)], tokenizer, tmp_path / "s", heldout_fraction=0.5)
    assert sorted(os.listdir(tmp_path)) == before


def test_failing_input_leaves_nothing(tmp_path, tokenizer):
    def broken():
        yield from (letters(20, i) for i in range(1500))
        raise KeyError("the source died")

    with pytest.raises(KeyError):
        run(broken(), tokenizer, tmp_path / "s", heldout_fraction=0.2)
    for odd in ("a\ud800b", None):
        with pytest.raises(DataError):
            run([letters(20), odd], tokenizer, tmp_path / "s", heldout_fraction=0.2)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("options", [{"max_length": 11}, {"heldout_fraction": 1.0}, {"min_length": 2}])
def test_settings_are_checked(tmp_path, tokenizer, options):
    with pytest.raises(ConfigError):
        run([letters(20)], tokenizer, tmp_path / "s", **options)


def test_text_lines(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffcafé\r\n\n  \n two words \nlast".encode())
    (tmp_path / "b").write_bytes(b"")
    assert list(read_text([tmp_path / "a.txt", tmp_path / "b"])) == ["café", "two words", "last"]
    (tmp_path / "latin").write_bytes(b"one\n\nna\xefve\n")
    with pytest.raises(DataError, match="latin: line 3: byte 7 is not UTF-8"):
        list(read_text([tmp_path / "latin"]))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_records(tmp_path, suffix):
    rows = {"body": ["first text", " second ", "", None], "n": [1, 2, 3, 4]}
    path = tmp_path / f"r{suffix}"
    if suffix == ".parquet":
        datasets.Dataset.from_dict(rows).to_parquet(path)
    else:
        path.write_text("".join(json.dumps({"body": b, "n": n}) + "\n" for b, n in zip(*rows.values(), strict=True)))
    assert list(read_text([path], "body")) == ["first text", "second"]
    assert list(read_dataset(str(tmp_path), None, "train", "body")) == ["first text", "second"]
    with pytest.raises(DataError, match=rf"r{suffix}: no column 'text'; its columns are body, n"):
        list(read_text([path]))
    with pytest.raises(DataError, match="holds int, not text"):
        list(read_text([path], "n"))
    (tmp_path / f"bad{suffix}").write_bytes(b'{"text": "a"}\n{"text": \n')
    with pytest.raises(DataError, match=rf"bad{suffix}: cannot be read"):
        list(read_text([tmp_path / f"bad{suffix}"]))
    (tmp_path / f"none{suffix}").write_bytes(b"")
    assert list(read_text([tmp_path / f"none{suffix}"])) == []


@pytest.fixture(scope="module")
def place(tmp_path_factory, tokenizer) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    tokenizer.save_pretrained(folder / "tok")
    (folder / "good.txt").write_text("\n".join(letters(20, i) for i in range(30)))
    (folder / "empty.txt").write_bytes(b"")
    (folder / "latin.txt").write_bytes(b"na\xefve\n")
    (folder / "short.txt").write_text("a b c\n")
    (folder / "torn.jsonl").write_text('{"text": "a"}\n{"text": \n')
    return folder


def launch(place: Path, text: str, out: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch/binarize.py"), "--text", text, "--tokenizer", "tok", "--out", out]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([*command, *options], cwd=place, env=environment, capture_output=True, text=True, timeout=120)


def test_command_line(place):
    done = launch(place, "good.txt", "runs/new/s", "--heldout_fraction", "0.3", "--max_length", "64")
    assert (done.returncode, done.stderr) == (0, "")
    sizes = [len(Store.open(place / "runs/new" / name)) for name in ("s", "s-heldout")]
    assert sum(sizes) == 30 and all(sizes) and len(done.stdout.splitlines()) < 20
    assert f"{sizes[0] * 22:,}" in done.stdout and np.dtype(Store.open(place / "runs/new/s").meta.dtype) == np.uint16


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("empty.txt", "no usable sequence"),
        ("short.txt", "no usable sequence"),
        ("latin.txt", "line 1: byte 2 is not UTF-8"),
        ("torn.jsonl", "torn.jsonl: cannot be read"),
        ("missing.txt", "no such file"),
        ("tok", "is a folder"),
        ("good.txt", "exists already"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_65(place, text, reason):
    if text == "good.txt":
        assert launch(place, text, "bad").returncode == 0
    before = {path: path.stat().st_mtime_ns for path in place.glob("**/*bad*")}
    done = launch(place, text, "bad")
    assert done.returncode == 65
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ") and reason in done.stderr
    assert {path: path.stat().st_mtime_ns for path in place.glob("**/*bad*")} == before
    assert len(before) == (4 if text == "good.txt" else 0)
