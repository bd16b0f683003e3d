"""Small tokenizers of three kinds: BERT's template, RoBERTa's, and GPT-2's, which has none."""

from __future__ import annotations

import json
import string

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertTokenizerFast, GPT2TokenizerFast, PreTrainedTokenizerFast, RobertaTokenizerFast

TRAINED_ON = ["the rain in Spain stays mainly in the plain", "who said so? the rain, the river and the valley"] * 5


def bert_like() -> PreTrainedTokenizerFast:
    """Words in pieces of a letter, a few whole ones, lower case without accents; most else unknown."""
    pieces = [*string.ascii_lowercase, *string.digits, *string.punctuation, "the", "rain", "river"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces, *(f"##{c}" for c in string.ascii_lowercase)]
    return BertTokenizerFast(vocab={word: i for i, word in enumerate(words)})


def _bytes() -> dict[str, object]:
    """Vocabulary and merges of a byte-level BPE."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=290, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TRAINED_ON, trainer)
    made = json.loads(tokenizer.to_str())["model"]
    return {"vocab": made["vocab"], "merges": [tuple(merge) for merge in made["merges"]]}


def roberta_like() -> PreTrainedTokenizerFast:
    """Bytes, no token types, two separators between texts, offsets without the space before a word."""
    return RobertaTokenizerFast(**_bytes())


def gpt2_like() -> PreTrainedTokenizerFast:
    """Bytes, nothing around or between texts, offsets with the space before a word."""
    return GPT2TokenizerFast(**_bytes())


KINDS = {"bert": bert_like, "roberta": roberta_like, "gpt2": gpt2_like}
