"""A tiny job of each family: a random teacher with a tokenizer of its kind, text, store and recipe."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from harness import RECIPE, ROOT, SPECIAL, WORDS, Material, make_material, with_other
from tiny import config
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from distil.config import Recipe
from distil.data.binarize import binarize
from distil.data.sources import files
from distil.data.store import Store
from distil.data.trimming import save, trim
from distil.errors import ConfigError, one_line
from distil.job import Job, settle
from distil.models.families import FAMILIES
from distil.placement import place

LENGTH = 32
# Of each family the student. "adapted" is a teacher that goes on learning from labels alone; "trimmed" has a third of
# its teacher's vocabulary, "minilm" relations for its only term, "narrow" half the width and every term.
STUDENTS = {
    "bert": 'student = "distilbert"\nstudent_depth = 2',
    **{name: 'student = "same"\nstudent_depth = 2' for name in FAMILIES if name not in ("bert", "distilbert")},
    "distilbert": 'student = "same"\nstudent_layers = [3, 0]',
    "adapted": 'student = "same"',
    "trimmed": 'student = "distilbert"\nstudent_depth = 2',
    "minilm": 'student = "same"\nstudent_depth = 2',
    "narrow": 'student = "distilbert"\nstudent_depth = 3\nstudent_hidden = 16\nstudent_feed_forward = 20',
}
EVERY_TERM = """alpha_mse = 0.01
alpha_hidden = 0.5
hidden_layers = ["0:1", "2:3"]
alpha_relations = 1.0
relation_heads = 8
kd_until = 0.6
"""


# Each somewhere else: ds_config and precision.
PLACEMENTS = {
    "bert": ("zero0", "fp32"), "roberta": ("zero1", "fp16"), "xlm-roberta": ("zero2", "bf16"),
    "albert": ("zero3", "fp32"), "modernbert": ("zero1_bf16", "bf16"), "gpt2": ("zero3", "fp16"),
    "distilbert": ("zero2_offload", "fp32"), "adapted": ("zero1", "fp32"), "trimmed": ("zero1", "bf16"),
    "minilm": ("zero2", "fp32"), "narrow": ("zero3", "bf16"),
}  # fmt: skip


def of_model(case: str) -> str:
    """The family of a case's teacher."""
    return case if case in FAMILIES else "gpt2" if case == "adapted" else "bert"


def tokenizer_of(family: str, lines: list[str]) -> transformers.PreTrainedTokenizerFast:
    """WordPiece, byte-level BPE with RoBERTa's or GPT-2's special tokens, or Unigram, made of the text at hand."""
    if family in ("bert", "distilbert"):
        letters = sorted(set("".join(WORDS)))
        pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *WORDS]
        return transformers.BertTokenizerFast(vocab={piece: i for i, piece in enumerate(pieces)})
    if family in ("xlm-roberta", "albert"):
        names = (
            ["[CLS]", "[SEP]", "<pad>", "<unk>", "[MASK]"] if family == "albert" else ["<s>", "</s>", "<unk>", "<pad>"]
        )
        names += [] if family == "albert" else ["<mask>"]
        made = tokenizers.Tokenizer(models.Unigram())
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=90, special_tokens=names, unk_token="<unk>", show_progress=False)
    else:
        names = ["<|endoftext|>"] if family == "gpt2" else ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        made = tokenizers.Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder, made.post_processor = decoders.ByteLevel(), processors.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=300, special_tokens=names, show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        )  # fmt: skip
    made.train_from_iterator(lines, trainer)
    if family == "gpt2":
        roles = dict.fromkeys(("bos_token", "eos_token", "unk_token"), names[0])
    elif family == "albert":
        roles = dict(zip(("cls_token", "sep_token", "pad_token", "unk_token", "mask_token"), names, strict=True))
    else:
        of = {"pad_token": "<pad>", "unk_token": "<unk>", "mask_token": "<mask>"}
        roles = of | {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **roles)


def make_job(folder: Path, case: str) -> Path:
    """Teacher, text, store with a held-out part and recipe tiny.toml of a case in a folder."""
    family, rng = of_model(case), random.Random(5)
    lines = [" ".join(rng.choices(WORDS, weights=range(1, len(WORDS) + 1), k=rng.randint(10, 30))) for _ in range(600)]
    folder.mkdir(exist_ok=True)
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    tokenizer = tokenizer_of(family, lines)
    ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos")}
    positions = LENGTH + (ids["pad_token_id"] or 0) + 1 if FAMILIES[family].positions_after_pad else LENGTH
    sizes = {FAMILIES[family].config["positions"]: positions, "vocab_size": len(tokenizer), "initializer_range": 0.3}
    torch.manual_seed(11)
    FAMILIES[family].model_class(config(family, **sizes, **ids)).save_pretrained(folder / "teacher")
    tokenizer.save_pretrained(folder / "teacher")
    how = {"max_length": LENGTH, "heldout_fraction": 0.1, "progress": False}
    loaded = transformers.AutoTokenizer.from_pretrained(folder / "teacher")
    binarize(files([folder / "text.txt"]), loaded, folder / "store", **how)
    if case == "trimmed":
        trim_to = trim(Store.open(folder / "store"), loaded, keep=40)
        save(trim_to, folder / "tokenizer", folder / "teacher")
        small = transformers.AutoTokenizer.from_pretrained(folder / "tokenizer")
        binarize(files([folder / "text.txt"]), small, folder / "store", overwrite=True, **how)
    (folder / "tiny.toml").write_text(_recipe(case, folder))
    return folder


def settled(folder: Path, max_steps: int | None = None, ranks: int = 1, **changes: object) -> Job:
    """The job of a folder's recipe with some fields changed, as a run settles it before any model is loaded."""
    recipe = Recipe.load(str(folder / "tiny.toml"), changes)
    placement = place(ROOT / "ds_config" / "zero1.json", recipe, ranks, "cpu", ("fp32",), "fp32")
    return settle(recipe, placement, recipe.model.teacher, max_steps)


def refused(folder: Path, kind: type[Exception] = ConfigError, **changes: object) -> str:
    """What a user is told of such a job, which must be refused: one line."""
    with pytest.raises(kind) as caught:
        settled(folder, **changes)
    said = str(caught.value)
    assert said == one_line(said)
    return said


def make_causal_material(folder: Path) -> Material:
    """As harness.make_material, a causal job: GPT-2 to a smaller GPT-2."""
    return with_other(make_job(folder, "gpt2"), random.Random(6))


MATERIALS = {"mlm": make_material, "clm": make_causal_material}  # of each objective, made in a folder


def _recipe(case: str, folder: Path) -> str:
    text = RECIPE.format(teacher=folder / "teacher", store=folder / "store")
    text = text.replace('student = "distilbert"\nstudent_layers = [0, 2]', STUDENTS[case])
    if case == "narrow":
        text = text.replace("[masking]", EVERY_TERM + "[masking]").replace("epochs = 12", "epochs = 12\nsteps = 30")
    if case == "trimmed":
        text = text.replace("[model]", f'[model]\ntokenizer = "{folder / "tokenizer"}"')
    if case == "minilm":
        for name in ("ce = 5.0", "mlm = 2.0", "cos = 1.0"):
            text = text.replace(f"alpha_{name}", f"alpha_{name[:-3]}0.0")
        text = text.replace("[masking]", "alpha_relations = 1.0\nrelation_heads = 8\n[masking]")
    if case == "adapted":
        text = text.replace("alpha_ce = 5.0", "alpha_ce = 0.0").replace("alpha_cos = 1.0", "alpha_cos = 0.0")
    if FAMILIES[of_model(case)].causal:
        start, end = text.index("[masking]"), text.index("[data]")
        text = (text[:start] + text[end:]).replace("alpha_mlm", "alpha_clm")
    return text
