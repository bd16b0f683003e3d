"""What a person sees of a store, and the commands that show, check, join and adopt."""

from __future__ import annotations

import os
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stores import build, flip, origin
from transformers import BertTokenizerFast

from distil.data.inspection import inspect
from distil.data.tokenizer import fingerprint

ROOT = Path(__file__).parents[2]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *string.ascii_lowercase]
A, B = WORDS.index("a"), WORDS.index("b")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory) -> BertTokenizerFast:
    folder = tmp_path_factory.mktemp("tokenizer")
    BertTokenizerFast(vocab={word: i for i, word in enumerate(WORDS)}).save_pretrained(folder)
    return BertTokenizerFast.from_pretrained(folder)


@pytest.fixture
def store(tmp_path, tokenizer):
    made_of = origin(len(WORDS), 32, tokenizer.name_or_path, fingerprint(tokenizer))
    sequences = [np.r_[2, [A] * n, 3] for n in (3, 3, 3, 30)] + [np.r_[2, A, B, 3]]
    return build(tmp_path / "s", sequences, made_of)


def test_sizes_lengths_tokens_and_samples(store, tokenizer):
    shown = list(inspect(store, tokenizer))
    text = "\n".join(shown)
    assert "sequences   5" in text and "tokens      51, 10.2 a sequence" in text and store.fingerprint in text
    bars = {line.split()[0]: line.split()[1:] for line in shown if "#" in line}
    assert bars == {"5-6": ["3", "#" * 40], "3-4": ["1", "#" * 13], "31-32": ["1", "#" * 13]}
    assert "4 of 31 ids occur" in text
    assert "most often  a 40  [CLS] 5  [SEP] 5  b 1" in text and "least often b 1  [SEP] 5  [CLS] 5  a 40" in text
    assert "sequence 0, 5 ids: [CLS] a a a [SEP]" in text and "sequence 4, 4 ids: [CLS] a b [SEP]" in text


def test_without_a_tokenizer_ids_are_shown(store):
    text = "\n".join(inspect(store, None))
    assert "most often  5 40  2 5  3 5  6 1" in text and "sequence 4, 4 ids: 2 5 6 3" in text


def test_one_sequence_is_enough(tmp_path):
    text = "\n".join(inspect(build(tmp_path / "one", [[7]]), None))
    assert "1-1                      1  " + "#" * 40 in text and "sequence 0, 1 ids: 7" in text


def launch(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "launch/binarize.py", *map(str, arguments)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_the_commands(store, tokenizer, tmp_path):
    shown = launch("inspect", store.prefix)
    assert (shown.returncode, shown.stderr) == (0, "") and "[CLS] a b [SEP]" in shown.stdout
    second = build(tmp_path / "t", [[2, B, 3]], origin(len(WORDS), 32, "gone", fingerprint(tokenizer)))
    shown = launch("inspect", second.prefix)
    assert shown.returncode == 0 and "tokens are shown as ids: gone" in shown.stdout and "2 6 3" in shown.stdout
    merged = launch("merge", store.prefix, second.prefix, "--out", tmp_path / "m")
    assert (merged.returncode, merged.stderr) == (0, "") and "6 sequences, 54 tokens of 2 stores" in merged.stdout
    for suffix in (".order", ".counts.npy", ".json"):
        os.remove(f"{second.prefix}{suffix}")
    adopted = launch("adopt", second.prefix, "--tokenizer", tokenizer.name_or_path)
    assert (adopted.returncode, adopted.stderr) == (0, "") and "t: a store: 1 sequences, 3 tokens" in adopted.stdout
    for suffix in (".order", ".counts.npy", ".json"):
        os.remove(f"{second.prefix}{suffix}")
    checked = launch("verify", store.prefix, second.prefix, tmp_path / "m", "--tokenizer", tokenizer.name_or_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "t: adopted" in checked.stdout and checked.stdout.count("whole: ") == 3


def test_mistakes_are_one_line(store, tmp_path):
    flip(f"{store.prefix}.bin", 3)
    for code, said, *arguments in (
        (65, "s.bin: ", "verify", store.prefix),
        (65, "nowhere: no token store here", "inspect", tmp_path / "nowhere"),
        (78, "--tokenizer", "adopt", store.prefix),
        (78, "two stores or more", "merge", store.prefix, "--out", tmp_path / "m"),
        (78, "--help lists the options", "verify"),
    ):
        refused = launch(*arguments)
        assert refused.returncode == code, refused
        assert refused.stderr.count("\n") == 1 and refused.stderr.startswith("error: ") and said in refused.stderr


@pytest.mark.parametrize("command", ["inspect", "verify", "merge", "adopt", "trim", "--help"])
def test_help(command):
    shown = launch(*dict.fromkeys((command, "--help")))
    assert shown.returncode == 0 and shown.stderr == "" and "PREFIX" in shown.stdout
