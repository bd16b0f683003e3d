"""Tokenizers: what loads, what is refused in one line, and a fingerprint that follows the ids and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import string

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertTokenizerFast, ByT5Tokenizer, PreTrainedTokenizerFast

from distil.data.tokenizer import fingerprint, load_tokenizer, special_ids, vocab_size
from distil.errors import DataError, one_line

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, *string.ascii_lowercase, *("##" + letter for letter in string.ascii_lowercase), "the", "##ing"]


def wordpiece(words=WORDS, **options) -> BertTokenizerFast:
    return BertTokenizerFast(vocab={word: i for i, word in enumerate(words)}, **options)


def trained(model, trainer, **options) -> PreTrainedTokenizerFast:
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", "<s>", "</s>", "<pad>"]
    backend.train_from_iterator(
        ["hello world foo bar baz"] * 20, trainer(vocab_size=60, special_tokens=special, show_progress=False, **options)
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


FAMILIES = {
    "wordpiece": wordpiece,
    "wordpiece cased": lambda: wordpiece(do_lower_case=False),
    "wordpiece with an added token": lambda: (t := wordpiece(), t.add_tokens(["covid"]))[0],
    "bpe": lambda: trained(models.BPE(unk_token="<unk>"), trainers.BpeTrainer),
    "unigram": lambda: trained(models.Unigram(), trainers.UnigramTrainer, unk_token="<unk>"),
}


@pytest.fixture
def folder(tmp_path):
    wordpiece().save_pretrained(tmp_path / "tok")
    return tmp_path / "tok"


@pytest.mark.parametrize("family", FAMILIES)
def test_fingerprint_survives_saving(tmp_path, family):
    tokenizer = FAMILIES[family]()
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert fingerprint(loaded) == fingerprint(tokenizer) and len(fingerprint(loaded)) == 64
    assert special_ids(loaded) == special_ids(tokenizer)
    assert loaded("hello world covid").input_ids == tokenizer("hello world covid").input_ids


def test_fingerprint_tells_all_families_apart():
    assert len({fingerprint(make()) for make in FAMILIES.values()}) == len(FAMILIES)


def test_fingerprint_ignores_truncation_and_padding():
    tokenizer = wordpiece()
    before = fingerprint(tokenizer)
    tokenizer("a b c d", truncation=True, max_length=4, padding="max_length")
    assert json.loads(tokenizer.backend_tokenizer.to_str())["truncation"] is not None  # the setting did stick
    assert fingerprint(tokenizer) == before


@pytest.mark.parametrize(
    "changed",
    [
        lambda: wordpiece([*WORDS, "zz"]),
        lambda: wordpiece([*WORDS[:-2], WORDS[-1], WORDS[-2]]),
        lambda: wordpiece(strip_accents=False),
        lambda: wordpiece(tokenize_chinese_chars=False),
        lambda: wordpiece(mask_token="the"),
    ],
    ids=["longer", "two ids swapped", "accents", "chinese", "other mask"],
)
def test_fingerprint_follows_what_decides_ids(changed):
    assert fingerprint(changed()) != fingerprint(wordpiece())


def test_special_ids_and_vocab_size():
    assert special_ids(wordpiece()) == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
    assert special_ids(FAMILIES["bpe"]()) == {"unk": 0, "cls": 1, "sep": 2, "pad": 3}  # bos and eos stand in
    assert vocab_size(wordpiece()) == len(WORDS)
    gap = wordpiece(WORDS[:-1])
    gap = BertTokenizerFast(vocab={**gap.get_vocab(), "##ing": 99})
    assert vocab_size(gap) == 100 != len(gap)


def test_old_folder_with_vocab_txt_has_the_same_fingerprint(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert fingerprint(load_tokenizer(tmp_path)) == fingerprint(wordpiece())


def empty(folder):
    shutil.rmtree(folder)
    os.mkdir(folder)


def only_config(folder):
    empty(folder)
    (folder / "config.json").write_text('{"model_type": "bert"}')


def cut(folder):
    path = folder / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:300])


def garbled(folder):
    (folder / "tokenizer.json").write_bytes(b"\x00\xff" * 50)


def slow(folder):
    empty(folder)
    ByT5Tokenizer().save_pretrained(folder)


@pytest.mark.parametrize("damage", [shutil.rmtree, empty, only_config, cut, garbled, slow])
def test_unusable_folder_is_one_line(folder, damage):
    assert len(load_tokenizer(folder)) == len(WORDS)  # whole before the damage
    damage(folder)
    with pytest.raises(DataError) as caught:
        load_tokenizer(folder)
    assert str(folder) in str(caught.value) and len(one_line(caught.value)) < 600
    if damage is slow:
        assert "slow tokenizer" in str(caught.value)


def test_file_for_a_folder_is_refused_without_asking_the_hub(folder):
    with pytest.raises(DataError, match="no such folder"):
        load_tokenizer(folder / "tokenizer.json")
