"""Names in a recipe made into things on disk: built-in samples are downloaded and built once, then reused."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
from pathlib import Path

import torch
import transformers

from distil.config import Recipe
from distil.data import samples
from distil.data.binarize import binarize
from distil.data.sources import files
from distil.data.store import Store
from distil.data.store_meta import BUILD, FORMAT_VERSION
from distil.data.tokenizer import fingerprint, load_tokenizer
from distil.errors import DataError
from distil.folder import building, prepared

FROM_RECIPE = "recipe:"
HELDOUT_FRACTION = 0.05
CHECKED_BYTES = 1 << 34  # of all stores: half a minute or so, hardly to be noticed before hours of training


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
    prefix = sample_prefix(name, tokenizer, max_length)
    if not Path(f"{prefix}.json").exists():
        text = prepared() / f"{name}.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text("\n".join(samples.texts(name)) + "\n", encoding="utf-8")
        options = {"max_length": max_length, "heldout_fraction": HELDOUT_FRACTION, "overwrite": True}
        binarize(files([text]), tokenizer, prefix, **options)
        text.unlink()
    return prefix


def sample_prefix(name: str, tokenizer: transformers.PreTrainedTokenizerBase, max_length: int) -> Path:
    """Where ``sample_store`` puts it."""
    return prepared() / f"{name}-{fingerprint(tokenizer)[:8]}-{max_length}-v{FORMAT_VERSION}"


def with_stores_found(recipe: Recipe) -> Recipe:
    """The recipe with the names of stores in place of patterns (``*``, ``?``, ``[``), those of a pattern sorted.

    Each store found has the weight that its pattern has. Held-out stores and unfinished builds are left out; what is a
    store as it is written is no pattern. Raises DataError where a pattern finds nothing, and ConfigError where the
    stores found make no mixture.
    """
    found: list[str] = []
    for entry, (prefix, _) in zip(recipe.data.store, recipe.data.stores, strict=True):
        weight = entry.removeprefix(prefix)  # as written, the colon included
        found += [name + weight for name in (_matching(prefix) if glob.has_magic(prefix) else [prefix])]
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, store=tuple(found)))


def _matching(pattern: str) -> list[str]:
    """Prefixes of the stores that fit, sorted."""
    if Path(f"{pattern}.json").exists():
        return [pattern]
    prefixes = [path.removesuffix(".json") for path in glob.glob(f"{pattern}.json", recursive=True)]
    found = [
        prefix
        for prefix in prefixes
        if Path(f"{prefix}.bin").exists()
        and not prefix.endswith("-heldout")
        and not Path(prefix).parent.name.endswith(".building")
    ]
    if not found:
        raise DataError(
            f"{pattern}: no store fits this pattern, held-out ones left out; correct it, or make one with {BUILD}"
        )
    return sorted(found)


def prepare_stores(recipe: Recipe, teacher: str) -> None:
    """Make stores of samples and check what all stores hold; one rank does this before all open them.

    Raises DataError for damage. Beyond CHECKED_BYTES stores are not read: ``binarize verify`` does that.
    """
    if any(prefix.startswith(samples.PREFIX) for prefix, _ in recipe.data.stores):
        tokenizer = load_tokenizer(recipe.model.tokenizer or teacher)
        for prefix, _ in recipe.data.stores:
            _resolved(prefix, tokenizer, recipe.data.max_length)
    else:
        tokenizer = None
    left = CHECKED_BYTES
    for store in sum(_open(recipe, tokenizer), []):
        if store.bytes <= left:
            store.verify()
            left -= store.bytes


def fitted(recipe: Recipe) -> Path:
    """Folder of the run that fits a teacher by a recipe, named by a digest of the recipe's mathematics."""
    digest = hashlib.sha256(json.dumps(recipe.mathematics(), sort_keys=True).encode()).hexdigest()[:8]
    return prepared() / f"{recipe.name}-{digest}"


def open_stores(
    recipe: Recipe, tokenizer: transformers.PreTrainedTokenizerBase
) -> tuple[list[Store], list[Store]]:  # fmt: skip
    """The recipe's stores and the held-out ones that there are, checked against the tokenizer and max_length.

    Raises DataError for a missing, truncated or foreign store. Sample texts must have been prepared.
    """
    stores, heldout = _open(recipe, tokenizer)
    for store in stores + heldout:
        store.check_tokenizer(fingerprint(tokenizer), str(tokenizer.name_or_path))
        if store.lengths.longest > recipe.data.max_length:
            raise DataError(
                f"store {store.prefix} holds sequences of {store.lengths.longest} tokens, "
                f"the recipe's max_length is {recipe.data.max_length}: "
                f"binarize with --max_length {recipe.data.max_length}, or give --max_length {store.lengths.longest}"
            )
    return stores, heldout


def _open(recipe: Recipe, tokenizer: transformers.PreTrainedTokenizerBase | None) -> tuple[list[Store], list[Store]]:
    prefixes = [_resolved(prefix, tokenizer, recipe.data.max_length) for prefix, _ in recipe.data.stores]
    heldout = [f"{prefix}-heldout" for prefix in prefixes if Path(f"{prefix}-heldout.json").exists()]
    if recipe.run.heldout_store:
        heldout = [recipe.run.heldout_store]
    return [Store.open(prefix) for prefix in prefixes], [Store.open(prefix) for prefix in heldout]


def _resolved(prefix: str, tokenizer: transformers.PreTrainedTokenizerBase | None, max_length: int) -> str:
    if not prefix.startswith(samples.PREFIX):
        return prefix
    return str(sample_store(prefix.removeprefix(samples.PREFIX), tokenizer, max_length))
