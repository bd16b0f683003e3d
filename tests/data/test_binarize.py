"""Text to store: the recipe's rules exactly, the held-out split, workers, and refusals from the command line."""

from __future__ import annotations

import json
import os
import random
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from letters import CLS, NUMBER, SEP, letters, stored, tokenizer_of_letters
from stores import contents
from transformers import BertTokenizerFast

from distil.data import pieces, words
from distil.data.binarize import binarize
from distil.data.sources import files
from distil.data.store import Store
from distil.data.tokenizer import fingerprint
from distil.errors import ConfigError, DataError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizerFast:
    return tokenizer_of_letters()


def run(texts: list[str], tokenizer, prefix: Path, join: str = "lines", **options):
    """Binarise texts, a line each, from a file beside the store, which is removed again."""
    path = prefix.with_name(f"{prefix.name}.txt")
    path.write_text("\n".join(texts) + "\n")
    try:
        return binarize(files([path], join=join), tokenizer, prefix, progress=False, **options)
    finally:
        path.unlink()


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
    assert report.dropped_short == 1 - kept and report.texts == 2  # a blank line is no text


@pytest.mark.parametrize(("unknown", "kept"), [(9, True), (10, False), (18, False)])
def test_unknown_rule(tmp_path, tokenizer, unknown, kept):
    """Of 20 tokens, [CLS] and [SEP] included, 10 unknown are half and thus too many."""
    report = run([letters(20), " ".join(["7"] * unknown + ["a"] * (18 - unknown))], tokenizer, tmp_path / "s")
    assert len(stored(tmp_path / "s")) == 1 + kept and report.dropped_unknown == 1 - kept


@pytest.mark.parametrize(
    ("raw", "cut", "short"),
    [(14, [14], 0), (15, [14], 1), (23, [14], 1), (24, [14, 10], 0), (28, [14, 14], 0), (38, [14, 14, 10], 0)],
)
def test_long_rule(tmp_path, tokenizer, raw, cut, short):
    """With max_length 16, pieces hold 14 raw ids; each is closed again and its rest judged on its own."""
    text = letters(raw)
    ids = [NUMBER[letter] for letter in text.split()]
    report = run([text], tokenizer, tmp_path / "s", max_length=16)
    expected = [[CLS, *ids[14 * k : 14 * k + size], SEP] for k, size in enumerate(cut)]
    assert stored(tmp_path / "s") == expected
    assert (report.dropped_short, report.split, report.texts) == (short, raw > 14, 1)


def test_documents_are_packed_until_sequences_are_full(tmp_path, tokenizer):
    # Sentences of 10 letters, 7 a document: with max_length 32, 30 + 30 + 10 ids, where lines give 7 times 10.
    documents = [[letters(10, 10 * d + s) for s in range(7)] for d in range(5)]
    lines = [line for document in documents for line in (*document, "")]
    run(lines, tokenizer, tmp_path / "d", "documents", max_length=32)
    run(lines, tokenizer, tmp_path / "l", "lines", max_length=32)
    found = stored(tmp_path / "d")
    assert [len(ids) for ids in found] == [32, 32, 12] * 5 and {len(ids) for ids in stored(tmp_path / "l")} == {12}
    joined = [i for ids in found for i in ids[1:-1]]
    assert joined == [NUMBER[letter] for document in documents for line in document for letter in line.split()]


def test_tokenizer_with_truncation_and_padding_is_neither_obeyed_nor_changed(tmp_path):
    tokenizer = tokenizer_of_letters()
    tokenizer("a", truncation=True, max_length=20, padding="max_length")  # between the lengths of the texts below
    before = tokenizer.backend_tokenizer.to_str()
    assert '"max_length":20' in before and '"Fixed":20' in before
    run([letters(30), letters(12)], tokenizer, tmp_path / "s")
    assert [len(ids) for ids in stored(tmp_path / "s")] == [32, 14]
    assert tokenizer.backend_tokenizer.to_str() == before


def test_a_very_long_text_has_the_ids_of_the_whole(tmp_path, tokenizer, monkeypatch):
    texts = [letters(5000, i) for i in range(3)]
    run(texts, tokenizer, tmp_path / "whole")
    monkeypatch.setattr(words, "TEXT_CHARACTERS", 1000)  # a text then goes through the tokenizer in portions
    run(texts, tokenizer, tmp_path / "portions")
    assert contents(tmp_path / "portions") == contents(tmp_path / "whole")


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_bytes_are_the_same_for_any_number_of_workers(tmp_path, tokenizer, monkeypatch, workers):
    texts = [letters(10 + i % 30, i) for i in range(600)]
    run(texts, tokenizer, tmp_path / "whole", heldout_fraction=0.2)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 2000)  # a worker is told where its piece ends
    for i in range(3):
        (tmp_path / f"{i}.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts[i * 200 :][:200]))
    how = {"heldout_fraction": 0.2, "workers": workers, "progress": False}
    report = binarize(files([f"{tmp_path}/*.jsonl"]), tokenizer, tmp_path / "s", **how)
    for name in ("", "-heldout"):
        assert contents(f"{tmp_path}/s{name}") == contents(f"{tmp_path}/whole{name}")
    assert report.texts == 600 and report.sequences + report.heldout_sequences == 600


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


@pytest.mark.parametrize("join", ["lines", "documents"])
def test_heldout_takes_whole_documents(tmp_path, tokenizer, join):
    # A row of two lines, of one letter throughout; each line cut into 14 + 14 + 12.
    rows = [json.dumps({"text": "\n".join([" ".join([letter] * 40)] * 2)}) for letter in string.ascii_lowercase]
    (tmp_path / "r.jsonl").write_text("\n".join(rows))
    how = {"heldout_fraction": 0.5, "max_length": 16, "progress": False}
    binarize(files([tmp_path / "r.jsonl"], join=join), tokenizer, tmp_path / "s", **how)
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


@pytest.mark.parametrize("workers", [1, 2])
def test_failing_input_leaves_nothing(tmp_path, tokenizer, workers):
    rows = [json.dumps({"text": letters(20, i)}) for i in range(1500)]
    (tmp_path / "r.jsonl").write_text("\n".join([*rows, '{"text": "a\\ud800b"}']))
    how = {"heldout_fraction": 0.2, "workers": workers, "progress": False}
    with pytest.raises(DataError, match=r"r\.jsonl: a text between 0 and \d+ is not valid Unicode .* lone surrogates"):
        binarize(files([tmp_path / "r.jsonl"]), tokenizer, tmp_path / "s", **how)
    assert os.listdir(tmp_path) == ["r.jsonl"]


@pytest.mark.parametrize(
    "options", [{"max_length": 11}, {"heldout_fraction": 1.0}, {"min_length": 2}, {"workers": 0}]
)  # fmt: skip
def test_settings_are_checked(tmp_path, tokenizer, options):
    with pytest.raises(ConfigError):
        run([letters(20)], tokenizer, tmp_path / "s", **options)


# --- the command line ----------------------------------------------------------------------------------------------


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
    done = launch(place, "g*.txt", "runs/new/s", "--heldout_fraction", "0.3", "--max_length", "64")
    assert (done.returncode, done.stderr) == (0, "")
    sizes = [len(Store.open(place / "runs/new" / name)) for name in ("s", "s-heldout")]
    assert sum(sizes) == 30 and all(sizes) and len(done.stdout.splitlines()) < 20
    assert f"{sizes[0] * 22:,}" in done.stdout and np.dtype(Store.open(place / "runs/new/s").meta.dtype) == np.uint16


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("empty.txt", "no usable sequence"),
        ("short.txt", "no usable sequence"),
        ("latin.txt", "line 1, byte 2 is not UTF-8"),
        ("torn.jsonl", "torn.jsonl: the row at byte 14 is not JSON"),
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
    assert len(before) == (5 if text == "good.txt" else 0)
