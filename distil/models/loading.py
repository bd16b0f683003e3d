"""Models from a hub name or a local folder: safetensors only, no code of theirs is run."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
import transformers

from distil.errors import ConfigError, DataError, one_line
from distil.hub import pinned
from distil.models.families import family_of
from distil.models.family import Family

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


def load_config(name_or_dir: str) -> transformers.PreTrainedConfig:
    """A model's config. Raises DataError where there is none."""
    if not Path(name_or_dir).is_dir() and (name_or_dir.startswith(("/", ".", "~")) or name_or_dir.count("/") > 1):
        raise DataError(f"no model folder {name_or_dir}; name a folder with config.json, or a model of the hub")
    try:
        name, revision = pinned(name_or_dir)
        return transformers.AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except ConfigError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(_refusal(name_or_dir, "config.json", error)) from error


def weights_fingerprint(name_or_dir: str, config: transformers.PreTrainedConfig) -> str:
    """What tells a model's weights from any others': SHA-256 over a folder's safetensors, or the hub's commit."""
    if not Path(name_or_dir).is_dir():
        return str(getattr(config, "_commit_hash", None))
    digest = hashlib.sha256()
    for path in sorted(Path(name_or_dir).glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def load_model(name_or_dir: str, dtype: torch.dtype) -> tuple[transformers.PreTrainedModel, Family]:
    """A model with its language-model head, in eval mode and without gradients, and its family.

    Raises DataError for a folder without weights or a checkpoint that lacks the head, ConfigError for a model of no
    known family.
    """
    config = load_config(name_or_dir)
    family = family_of(config)
    name, revision = pinned(name_or_dir)
    try:
        model, info = family.model_class.from_pretrained(
            name, revision=revision, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False,
            output_loading_info=True,
        )  # fmt: skip
    except Exception as error:  # safetensors raises its own type for a damaged file, the hub client several
        raise DataError(_refusal(name_or_dir, "model.safetensors", error)) from error
    if info["missing_keys"] or info["mismatched_keys"]:
        missing = sorted(info["missing_keys"]) or sorted(key for key, *_ in info["mismatched_keys"])
        raise DataError(
            f"model {name_or_dir} lacks {len(missing)} tensors of a {family.name} with its head, such as "
            f"{missing[0]}; fit a head first, as the recipe quickstart-teacher does"
        )
    return model.eval().requires_grad_(False), family


def _refusal(name_or_dir: str, file: str, error: Exception) -> str:
    if Path(name_or_dir).is_dir():
        return f"model folder {name_or_dir}: {file} is missing or damaged ({one_line(error)[:200]})"
    reason = one_line(error).split(". ")[0]
    return f"model {name_or_dir}: no folder of that name, and the hub did not give it ({reason})"
