"""Tokenizers of the ids that a store uses: the same tokens where all are kept, and everything can still be spelled."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from languages import MADE, ODD, OURS, THEIRS
from stores import build, origin
from tokenizers import Tokenizer, models
from transformers import BertTokenizerFast, PreTrainedTokenizerFast

from distil.data import commands
from distil.data.store import Store
from distil.data.tokenizer import fingerprint, load_tokenizer, special_ids, vocab_size
from distil.data.trimming import restricted, save, trim
from distil.errors import ConfigError, DataError, one_line

ROOT = Path(__file__).parents[2]


class Case:
    """A tokenizer on disk and a store of OURS."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.place = kind, folder / "whole"
        MADE[kind]().save_pretrained(self.place)
        self.tokenizer = load_tokenizer(self.place)
        made_of = origin(vocab_size(self.tokenizer), 64, str(self.place), fingerprint(self.tokenizer))
        self.store = build(folder / "store", [self.tokenizer(line).input_ids for line in OURS], made_of)


@pytest.fixture(scope="module", params=MADE)
def case(request, tmp_path_factory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def small(case, tmp_path) -> PreTrainedTokenizerFast:
    """The trimmed tokenizer, as it loads."""
    save(trim(case.store, case.tokenizer), tmp_path / "small", case.place)
    return load_tokenizer(tmp_path / "small")


def tokens(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)


def test_ids_keep_their_order_and_are_numbered_anew(case, small):
    trimmed = trim(case.store, case.tokenizer)
    assert (np.diff(trimmed.ids) > 0).all() and len(trimmed.ids) < vocab_size(case.tokenizer)
    before = case.tokenizer.convert_ids_to_tokens(trimmed.ids.tolist())
    assert small.get_vocab() == {token: i for i, token in enumerate(before)}
    assert fingerprint(small) == fingerprint(trimmed.tokenizer)
    assert trimmed.covered == 1.0 and trimmed.by_count == np.count_nonzero(case.store.token_counts)


def test_what_a_language_alone_used_is_gone(case, small):
    gone = set(case.tokenizer.get_vocab()) - set(small.get_vocab())
    used = {token for line in OURS for token in tokens(case.tokenizer, line)}
    theirs = {token for line in THEIRS for token in tokens(case.tokenizer, line)} - used
    assert gone & theirs and not gone & used


def test_a_text_whose_tokens_are_all_kept_gets_the_same(case, small):
    ids = trim(case.store, case.tokenizer).ids
    draw = random.Random(3)
    words = [word for line in [*OURS, *THEIRS] for word in line.split()] + ["covid", "iv", "bri", "un", "r", "xyz"]
    same = 0
    for _ in range(300):
        text = " ".join(draw.choices(words, k=draw.randint(1, 3))) + draw.choice(["", "", "ridge", "old"])
        before = case.tokenizer(text).input_ids
        if set(before) <= set(ids.tolist()):
            assert ids[small(text).input_ids].tolist() == before, text
            same += 1
    assert same > 30
    pair = case.tokenizer(OURS[0], OURS[1])
    assert ids[small(OURS[0], OURS[1]).input_ids].tolist() == pair.input_ids
    assert small(OURS[0], OURS[1]).keys() == pair.keys()


def test_whatever_could_be_spelled_can_be(case, small):
    unknown = small.unk_token
    for text in [*OURS, *THEIRS, ODD, "Brüßel"]:
        before, after = tokens(case.tokenizer, text), tokens(small, text)
        assert after.count(unknown) == before.count(unknown), text
        if case.kind in ("gpt2", "roberta"):
            assert small.decode(small(text).input_ids) == case.tokenizer.decode(case.tokenizer(text).input_ids)
            assert small.decode(small(text, add_special_tokens=False).input_ids) == text
    assert len(tokens(small, THEIRS[0])) > len(tokens(case.tokenizer, THEIRS[0]))


def test_special_and_added_tokens_keep_their_roles(case, small):
    assert small.special_tokens_map == case.tokenizer.special_tokens_map
    assert special_ids(small).keys() == special_ids(case.tokenizer).keys()

    def added(tokenizer: PreTrainedTokenizerFast) -> list[dict]:
        found = json.loads(tokenizer.backend_tokenizer.to_str())["added_tokens"]
        return [{**token, "id": tokenizer.convert_ids_to_tokens(token["id"])} for token in found]

    assert added(small) == added(case.tokenizer)
    for name in ("model_max_length", "model_input_names", "padding_side", "all_special_tokens"):
        assert getattr(small, name) == getattr(case.tokenizer, name), name
    if small.mask_token:
        text = f"old {small.mask_token} bridge covid"
        assert tokens(small, text) == tokens(case.tokenizer, text) and small.mask_token_id in small(text).input_ids
    if small.pad_token:
        padded = small(["old", "the old man runs"], padding=True, truncation=True, max_length=8).input_ids
        assert padded[0][-1] == small.pad_token_id
        case.tokenizer(["old", "the old man runs"], padding=True, truncation=True, max_length=8)  # sticks; is no matter
        again = json.loads(trim(case.store, case.tokenizer).tokenizer.backend_tokenizer.to_str())
        assert again["padding"] is None and again["truncation"] is None


def test_a_model_beside_it_does_not_make_it_another_class(case, small, tmp_path):
    kind = {"wordpiece": "distilbert", "gpt2": "gpt2", "roberta": "roberta", "unigram": "xlm-roberta"}[case.kind]
    (tmp_path / "small" / "config.json").write_text(json.dumps({"model_type": kind}))
    again = load_tokenizer(tmp_path / "small")
    assert fingerprint(again) == fingerprint(small) and again(THEIRS[0]) == small(THEIRS[0])


def test_counts_choose(case):
    counts = case.store.token_counts
    often = trim(case.store, case.tokenizer, min_count=2)
    assert often.by_count == np.count_nonzero(counts >= 2) and set(np.flatnonzero(counts >= 2)) <= set(often.ids)
    few = trim(case.store, case.tokenizer, keep=3)
    first = sorted(range(len(counts)), key=lambda i: (-counts[i], i))[:3]
    assert few.by_count == 3 and set(first) <= set(few.ids.tolist())
    assert set(few.ids) < set(often.ids) and few.covered < 1.0
    assert few.covered == counts[few.ids].sum() / counts.sum()
    assert trim(case.store, case.tokenizer, keep=10**6).by_count == np.count_nonzero(counts)


def test_the_parts_of_a_kept_token_are_kept():
    vocabulary = {token: i for i, token in enumerate(["a", "b", "c", "ab", "bc", "abc", "ca"])}
    merges = [("a", "b"), ("b", "c"), ("c", "a"), ("ab", "c"), ("a", "bc")]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocabulary, merges)))
    smaller, ids = restricted(tokenizer, {5})
    assert ids.tolist() == [0, 1, 2, 3, 4, 5]
    kept = json.loads(smaller.backend_tokenizer.to_str())["model"]["merges"]
    assert kept == [["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"]]
    assert restricted(tokenizer, {4})[1].tolist() == [0, 1, 2, 4]


def test_an_unknown_character_costs_what_it_did():
    """aX and Xb alone spell X; bb stays while it is the worst piece, by which unk is rated."""
    for score, kept in ((-40.0, [0, 1, 2, 3, 4, 5, 6]), (-3.0, [1, 2, 3, 4, 5, 6])):
        pieces = [("bb", score), ("a", -2.0), ("b", -2.0), ("aX", -15.0), ("Xb", -15.0), ("bba", -3.0), ("?unk", 0.0)]
        backend = Tokenizer(models.Unigram([*pieces, ("bbb", -3.0)], 6, False))
        smaller, ids = restricted(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="?unk"), {5})
        assert ids.tolist() == kept
        assert smaller.convert_ids_to_tokens(smaller("aaZ").input_ids) == ["a", "a", "?unk"]


def test_the_token_for_the_unknown_stays_where_no_role_says_so():
    backend = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2, "?unk": 3}, [("a", "b")], unk_token="?unk"))
    smaller, ids = restricted(PreTrainedTokenizerFast(tokenizer_object=backend), {0})
    assert ids.tolist() == [0, 1, 3] and smaller("abX").input_ids == [0, 1, 2]


def mistakes(case: Case, tmp_path: Path) -> dict[str, tuple[type[Exception], str, dict]]:
    MADE["gpt2" if case.kind == "wordpiece" else "wordpiece"]().save_pretrained(tmp_path / "other")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "model.safetensors").touch()
    (tmp_path / "file").touch()
    return {
        "another tokenizer": (DataError, "gives other ids than", {"tokenizer": str(tmp_path / "other")}),
        "min_count": (ConfigError, "--min_count 0", {"min_count": 0}),
        "keep": (ConfigError, "--keep 0", {"keep": 0}),
        "nothing": (DataError, "no token occurs 1,000 times", {"min_count": 1000}),
        "full": (DataError, "holds more than a tokenizer, such as model.safetensors",
                 {"out": str(tmp_path / "full"), "overwrite": True}),
        "file": (DataError, "a file, where a folder", {"out": str(tmp_path / "file"), "overwrite": True}),
        "itself": (ConfigError, "which it reads", {"out": str(case.place) + "/", "overwrite": True}),
        "there": (DataError, "exists already; pass --overwrite", {"out": str(tmp_path / "full")}),
        "below a file": (DataError, "cannot write", {"out": str(tmp_path / "file" / "x")}),
    }  # fmt: skip


def test_mistakes_are_one_line_and_write_nothing(case, tmp_path):
    usual = {"prefixes": [case.store.prefix], "tokenizer": str(case.place), "min_count": 1, "keep": None}
    usual |= {"out": str(tmp_path / "out"), "overwrite": False}
    for what, (error, said, changes) in mistakes(case, tmp_path).items():
        with pytest.raises(error) as caught:
            list(commands.trim_tokenizer(**{**usual, **changes}))
        assert said in str(caught.value) and len(one_line(caught.value)) < 500, what
    assert sorted(os.listdir(tmp_path)) == ["file", "full", "other"]
    load_tokenizer(case.place)


def test_other_kinds_are_refused():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")), unk_token="a")
    with pytest.raises(DataError, match="kind WordLevel cannot be trimmed, only WordPiece, BPE, Unigram"):
        restricted(tokenizer, {0})


def test_ids_that_cannot_be_numbered_are_refused():
    tokenizer = BertTokenizerFast(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4, "a": 5, "b": 99})
    tokenizer.add_tokens(["covid"])  # takes id 7, before b's
    with pytest.raises(DataError, match="cannot be numbered anew"):
        restricted(tokenizer, {5, 99})


def test_the_command(tmp_path):
    case = Case("wordpiece", tmp_path)
    out = tmp_path / "out"
    command = [sys.executable, "launch/binarize.py", "trim", case.store.prefix, "--tokenizer", case.place, "--out", out]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    for further in ([], ["--keep", "4", "--overwrite"]):
        shown = subprocess.run(
            [*map(str, command), *further], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
        )
        assert (shown.returncode, shown.stderr) == (0, "")
        trimmed = trim(Store.open(case.store.prefix), case.tokenizer, keep=4 if further else None)
        kept, whole = len(trimmed.ids), vocab_size(case.tokenizer)
        assert f"out: {kept} of {whole} ids: {trimmed.by_count} for their counts" in shown.stdout
        assert ("100.000 %" in shown.stdout) == (not further)
        assert fingerprint(load_tokenizer(out)) == fingerprint(trimmed.tokenizer)
        assert len(load_tokenizer(out)) == kept < whole
