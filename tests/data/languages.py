"""Two small languages and tokenizers for both, one of each kind."""

from __future__ import annotations

import json

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BertTokenizerFast,
    GPT2TokenizerFast,
    PreTrainedTokenizerFast,
    RobertaTokenizerFast,
    XLMRobertaTokenizerFast,
)

OURS = ["the river runs under the old bridge", "an old man under the bridge", "the man runs to the river", "old river"]
THEIRS = ["zwei alte Flüsse fließen unter Brücken", "unter alten Brücken fließen zwei Flüsse", "ein alter Fluß"]
ODD = "\x00 naïve 漢字🙂\t\n  zz'll 1234 ﷽ <s> ## ▁ \u200b"


def byte_level(special: list[str], last: bool) -> dict:
    """Vocabulary and merges of a byte-level BPE; special tokens first, or last as GPT-2 has it."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    how = {"initial_alphabet": alphabet, "special_tokens": [] if last else special, "show_progress": False}
    backend.train_from_iterator([*OURS, *THEIRS] * 5, trainers.BpeTrainer(vocab_size=330, **how))
    model = json.loads(backend.to_str())["model"]
    vocabulary = model["vocab"] | ({token: len(model["vocab"]) + i for i, token in enumerate(special)} if last else {})
    return {"vocab": vocabulary, "merges": [tuple(merge) for merge in model["merges"]]}


def wordpiece() -> PreTrainedTokenizerFast:
    """As BERT has it, with an added token and one that nothing uses; a letter is missing among its single ones."""
    letters = sorted(set("".join([*OURS, *THEIRS]).replace(" ", "")) - {"ß"})
    words = sorted({word for line in [*OURS, *THEIRS] for word in line.split() if "ß" not in word})
    endings = ["##ße", "##uß", "##uss", "##iver", "##idge"]  # no token of one letter for ß: whoever has it is needed
    vocabulary = ["[PAD]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + c for c in letters)]
    vocabulary += [*words, *endings, *"[]1", "##]", "##1"]
    tokenizer = BertTokenizerFast(
        vocab={token: i for i, token in enumerate(dict.fromkeys(vocabulary))}, do_lower_case=False
    )
    tokenizer.add_tokens([AddedToken("covid", single_word=True, normalized=False)])
    return tokenizer


def unigram() -> PreTrainedTokenizerFast:
    """As XLM-R has it."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    how = {"vocab_size": 90, "special_tokens": ["<s>", "<pad>", "</s>", "<unk>"], "unk_token": "<unk>"}
    backend.train_from_iterator([*OURS, *THEIRS] * 5, trainers.UnigramTrainer(**how, show_progress=False))
    pieces = [tuple(piece) for piece in json.loads(backend.to_str())["model"]["vocab"]]
    return XLMRobertaTokenizerFast(vocab=[*pieces, ("<mask>", 0.0)], extra_special_tokens=["<de>"])


MADE = {
    "wordpiece": wordpiece,
    "gpt2": lambda: GPT2TokenizerFast(**byte_level(["<|endoftext|>"], last=True)),
    "roberta": lambda: RobertaTokenizerFast(
        **byte_level(["<s>", "<pad>", "</s>", "<unk>", "<mask>"], last=False),
        mask_token=AddedToken("<mask>", lstrip=True, special=True, normalized=False),
    ),
    "unigram": unigram,
}
