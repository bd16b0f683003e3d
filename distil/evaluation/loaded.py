"""Models as they were saved, with whatever head they have, to be timed and judged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
import transformers
from transformers.utils import cached_file

from distil.errors import ConfigError
from distil.evaluation.kept import CLM, MLM
from distil.hub import pinned
from distil.models.families import family_of
from distil.models.loading import from_checkpoint, load_config, load_model, refuse_incomplete
from distil.models.task_loading import load_fitted_model
from distil.tasks.task import CLASSIFICATION, REGRESSION, SPANS, Task

# By the end of the name of the class in config.json; of sequences with one label only it is a value.
_KINDS = {
    "ForMaskedLM": MLM, "LMHeadModel": CLM, "ForCausalLM": CLM, "ForSequenceClassification": CLASSIFICATION,
    "ForQuestionAnswering": SPANS,
}  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """A model in fp32 with stock attention, under the ``title`` of its rows; ``kind`` is one of ``kept.ALIKE``."""

    title: str
    name: str
    kind: str
    model: transformers.PreTrainedModel

    @classmethod
    def of(cls, title: str, name_or_dir: str, task: Task | None = None) -> Self:
        """The model of a folder or of the hub, by the class that its config names, fitted to ``task`` if there is one.

        Raises DataError where tensors are missing, or labels are not the task's, and ConfigError for another kind of
        model.
        """
        if task is not None:
            model, _ = load_fitted_model(name_or_dir, task, torch.float32)
            return cls(title, name_or_dir, task.kind, _stock(model))
        config = load_config(name_or_dir)
        family = family_of(config)
        name = (config.architectures or [""])[0]
        kind = next((kind for end, kind in _KINDS.items() if name.endswith(end)), None)
        if kind is None or not hasattr(transformers, name):
            raise ConfigError(
                f"model {name_or_dir} is {f'a {name}' if name else 'of no class that its config.json names'}: only "
                "language models, sequence classifiers and question answerers can be timed"
            )
        if kind in (MLM, CLM):
            model, _ = load_model(name_or_dir, torch.float32)
        else:
            family = replace(family, model_class=getattr(transformers, name))
            model, missing, mismatched = from_checkpoint(name_or_dir, family, config, torch.float32)
            refuse_incomplete(name_or_dir, missing, mismatched)
        if kind == CLASSIFICATION and config.num_labels == 1:
            kind = REGRESSION
        return cls(title, name_or_dir, kind, _stock(model))

    @property
    def pad_id(self) -> int:
        """What batches are padded with."""
        return self.model.config.pad_token_id

    @property
    def token_types(self) -> bool:
        """Whether it knows the two texts of a pair apart."""
        return getattr(self.model.config, "type_vocab_size", 0) > 1

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


def _stock(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """The model as a user of the export runs it."""
    model.set_attn_implementation("sdpa")
    model.config.use_cache = False  # a causal model is asked once, so that there is nothing to keep
    if model.config.pad_token_id is None:  # by which GPT-2's classifier finds the last token of a sequence
        model.config.pad_token_id = model.config.eos_token_id or 0
    return model.requires_grad_(False)
