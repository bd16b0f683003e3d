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
    except Exception as error:  # noqa: BLE001 - a value of the wrong type has an error of its own, of no common kind
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
    model, missing, mismatched = from_checkpoint(name_or_dir, family, config, dtype)
    if missing and not any(name.startswith(f"{family.encoder}.") for name in missing):
        raise DataError(
            f"model {name_or_dir} is a {family.name} without its head, {len(missing)} tensors such as {missing[0]}; "
            f"load and save it as {family.model_class.__name__} of transformers, which makes a head, and fit that by "
            "--recipe distilbert-base-uncased-teacher-mlm"
        )
    refuse_incomplete(name_or_dir, missing, mismatched)
    return model.requires_grad_(False), family


def from_checkpoint(
    name_or_dir: str, family: Family, config: transformers.PreTrainedConfig, dtype: torch.dtype
) -> tuple[transformers.PreTrainedModel, list[str], list[str]]:
    """A model of a family in eval mode, and the names of its tensors that the checkpoint lacks or has in other shapes.

    Those are random. Raises DataError where there are no weights to be read.
    """
    name, revision = pinned(name_or_dir)
    try:
        model, info = family.model_class.from_pretrained(
            name, revision=revision, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False,
            output_loading_info=True, ignore_mismatched_sizes=True,  # for the caller to refuse, in words of our own
        )  # fmt: skip
    except Exception as error:  # safetensors raises its own type for a damaged file, the hub client several
        raise DataError(_refusal(name_or_dir, "model.safetensors", error)) from error
    return model.eval(), sorted(info["missing_keys"]), sorted(key for key, *_ in info["mismatched_keys"])


def refuse_incomplete(name_or_dir: str, missing: list[str], mismatched: list[str]) -> None:
    """Raise DataError where a checkpoint lacks tensors, or has them in other shapes than its config says."""
    if missing or mismatched:
        what = f"has {len(missing)} tensors less" if missing else f"has {len(mismatched)} tensors of other shapes"
        raise DataError(
            f"model {name_or_dir} {what} than its config.json says, such as {(missing or mismatched)[0]}; give it the "
            "config.json and the model.safetensors of one model"
        )


def _refusal(name_or_dir: str, file: str, error: Exception) -> str:
    if Path(name_or_dir).is_dir():
        return f"model folder {name_or_dir}: {file} is missing or damaged ({one_line(error)[:200]})"
    reason = one_line(error).split(". ")[0]
    return f"model {name_or_dir}: no folder of that name, and the hub did not give it ({reason})"
