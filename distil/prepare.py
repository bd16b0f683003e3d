"""Names in a recipe made into things on disk: built-in samples are downloaded and built once, then reused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
import transformers

from distil.config import Recipe
from distil.data import binarize, samples
from distil.data.store import Store
from distil.data.tokenizer import fingerprint, load_tokenizer
from distil.errors import DataError
from distil.folder import building, prepared

FROM_RECIPE = "recipe:"
HELDOUT_FRACTION = 0.05


def sample_encoder(name: str) -> Path:
    """Folder of a sample encoder with a masked-LM head that is yet to be fitted; made on the first call."""
    folder = prepared() / name
    if folder.is_dir():
        return folder
    with building(folder) as draft:
        samples.encoder_files(name, draft / "encoder")
        model = transformers.BertForMaskedLM.from_pretrained(draft / "encoder", dtype=torch.float32)
        with torch.no_grad():
            # The head starts near the identity: the decoder, tied to the embeddings, sees the encoder's states.
            model.cls.predictions.transform.dense.weight.copy_(torch.eye(model.config.hidden_size))
            model.cls.predictions.transform.dense.bias.zero_()
        tokenizer = load_tokenizer(str(draft / "encoder"))
        for path in (draft / "encoder").iterdir():
            path.unlink()
        (draft / "encoder").rmdir()
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
    return folder


def sample_store(name: str, tokenizer: transformers.PreTrainedTokenizerBase, max_length: int) -> Path:
    """Prefix of a sample text's store for this tokenizer and length, with a held-out one; made on the first call."""
    prefix = prepared() / f"{name}-{fingerprint(tokenizer)[:8]}-{max_length}"
    if not Path(f"{prefix}.json").exists():
        binarize.binarize(
            samples.texts(name),
            tokenizer,
            prefix,
            max_length=max_length,
            heldout_fraction=HELDOUT_FRACTION,
            overwrite=True,
        )
    return prefix


def prepare_store(recipe: Recipe, teacher: str) -> None:
    """Make the recipe's store where it is a sample's; one rank does this before all open it."""
    name = recipe.data.store
    if name.startswith(samples.PREFIX):
        sample_store(name.removeprefix(samples.PREFIX), load_tokenizer(teacher), recipe.data.max_length)


def recipe_digest(recipe: Recipe) -> str:
    """Short digest of a recipe's mathematics, to name what was made by it."""
    return hashlib.sha256(json.dumps(recipe.mathematics(), sort_keys=True).encode()).hexdigest()[:8]


def open_stores(recipe: Recipe, tokenizer: transformers.PreTrainedTokenizerBase) -> tuple[Store, Store | None]:
    """The recipe's store and its held-out one, where there is one, checked against the tokenizer and max_length.

    Raises DataError for a missing, truncated or foreign store. Sample texts must have been prepared.
    """
    prefix = recipe.data.store
    if prefix.startswith(samples.PREFIX):
        prefix = str(sample_store(prefix.removeprefix(samples.PREFIX), tokenizer, recipe.data.max_length))
    heldout = recipe.run.heldout_store
    if not heldout and Path(f"{prefix}-heldout.json").exists():
        heldout = f"{prefix}-heldout"
    stores = [Store.open(name) for name in (prefix, heldout) if name]
    for store in stores:
        store.check_tokenizer(fingerprint(tokenizer), str(tokenizer.name_or_path))
    longest = max(int(store.lengths.max()) for store in stores)
    if longest > recipe.data.max_length:
        raise DataError(
            f"store {prefix} or its held-out part holds sequences of {longest} tokens, "
            f"the recipe's max_length is {recipe.data.max_length}: "
            f"binarize with --max_length {recipe.data.max_length}, or give --max_length {longest}"
        )
    return stores[0], stores[1] if heldout else None
