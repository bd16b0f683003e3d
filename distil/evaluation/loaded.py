"""Models as they were saved, with whatever head they have, to be timed and judged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
import transformers
from transformers.utils import cached_file

from distil.errors import ConfigError, DataError, one_line
from distil.hub import pinned
from distil.models.families import family_of
from distil.models.loading import load_config, load_model

# By the end of the name of the class in config.json: what a model says of a sequence. One class is a value.
KINDS = {
    "ForMaskedLM": "mlm", "LMHeadModel": "clm", "ForCausalLM": "clm", "ForSequenceClassification": "classes",
    "ForQuestionAnswering": "spans",
}  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """A model in fp32 with stock attention; ``kind`` is "mlm", "clm", "classes", "value" or "spans"."""

    title: str
    name: str
    kind: str
    model: transformers.PreTrainedModel

    @classmethod
    def of(cls, title: str, name_or_dir: str) -> Self:
        """The model of a folder or of the hub, by the class that its config names.

        Raises DataError where it names none, or where tensors are missing, and ConfigError for another kind of model.
        """
        config = load_config(name_or_dir)
        family_of(config)  # which refuses others
        name = (config.architectures or [""])[0]
        kind = next((kind for end, kind in KINDS.items() if name.endswith(end)), None)
        if kind is None or not hasattr(transformers, name):
            raise ConfigError(
                f"model {name_or_dir} is {f'a {name}' if name else 'of no class that its config.json names'}: only "
                "language models, sequence classifiers and question answerers can be timed"
            )
        if kind in ("mlm", "clm"):
            model, _ = load_model(name_or_dir, torch.float32)
        else:
            model = _task_model(name_or_dir, getattr(transformers, name), config)
        if kind == "classes" and config.num_labels == 1:
            kind = "value"
        model.set_attn_implementation("sdpa")
        if model.config.pad_token_id is None:  # by which GPT-2's classifier finds the last token of a sequence
            model.config.pad_token_id = model.config.eos_token_id or 0
        model.config.use_cache = False  # a causal model is asked once, so that there is nothing to keep
        return cls(title, name_or_dir, kind, model.requires_grad_(False))

    @property
    def pad_id(self) -> int:
        """What batches are padded with."""
        return self.model.config.pad_token_id

    @property
    def longest(self) -> int:
        """The longest sequence in tokens for which there are positions."""
        return family_of(self.model.config).longest(self.model.config)

    @property
    def parameters(self) -> int:
        """Tied ones once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    @property
    def file_bytes(self) -> int:
        """Bytes of its safetensors as they lie in its folder, or in the hub's cache."""
        folder = Path(self.name)
        if not folder.is_dir():
            name, revision = pinned(self.name)
            folder = Path(cached_file(name, "config.json", revision=revision)).parent
        return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _task_model(
    name_or_dir: str, kind: type[transformers.PreTrainedModel], config: transformers.PreTrainedConfig
) -> transformers.PreTrainedModel:
    name, revision = pinned(name_or_dir)
    try:
        model, info = kind.from_pretrained(
            name, revision=revision, config=config, dtype=torch.float32, use_safetensors=True, trust_remote_code=False,
            output_loading_info=True, ignore_mismatched_sizes=True,  # refused below
        )  # fmt: skip
    except Exception as error:  # safetensors raises its own type for a damaged file, the hub client several
        raise DataError(f"model {name_or_dir}: model.safetensors is missing or damaged ({one_line(error)})") from error
    wrong = sorted(info["missing_keys"]) + sorted(key for key, *_ in info["mismatched_keys"])
    if wrong:
        raise DataError(
            f"model {name_or_dir} lacks {len(wrong)} tensors of a {kind.__name__}, or has them in other shapes, such "
            f"as {wrong[0]}; give it the config.json and the model.safetensors of one model"
        )
    return model.eval()
