"""Model families as data: where each keeps its parts, under names common to all.

Adding a family is adding an entry to FAMILIES. ``modules`` and ``config`` map a common name to the family's own; what
two families both name can be copied from one to the other. ``{}`` stands for the layer's number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import transformers
from torch import Tensor, nn

from distil.errors import ConfigError
from distil.kernels import Head


@dataclass(frozen=True)
class Family:
    """Names of one family's parts; ``layer_norm_eps`` is set where the family's code fixes what others configure."""

    name: str
    model_type: str
    model_class: type[transformers.PreTrainedModel]
    config_class: type[transformers.PreTrainedConfig]
    encoder: str
    head_transform: tuple[str, ...]
    decoder: str
    modules: Mapping[str, str]
    config: Mapping[str, str]
    layer_norm_eps: float | None = None

    def module(self, model: nn.Module, common_name: str, layer: int | None = None) -> nn.Module | None:
        """The module a common name stands for, or None where the family has no such part."""
        path = self.modules.get(common_name)
        return model.get_submodule(path.format(layer)) if path else None

    def hidden(self, model: nn.Module, **inputs: object) -> Tensor:
        """Last hidden states of a packed batch, shape (N, H)."""
        return model.get_submodule(self.encoder)(**inputs).last_hidden_state.squeeze(0)

    def head(self, model: nn.Module) -> Head:
        """The language-model head of a model of this family."""
        steps = [model.get_submodule(path) for path in self.head_transform]
        decoder = model.get_submodule(self.decoder)

        def transform(hidden_RH: Tensor) -> Tensor:
            for step in steps:
                hidden_RH = step(hidden_RH)
            return hidden_RH

        return Head(transform, decoder.weight, decoder.bias)

    def layers_of(self, config: transformers.PreTrainedConfig) -> int:
        """Number of layers a config of this family asks for."""
        return getattr(config, self.config["layers"])


_BERT_LAYER = "bert.encoder.layer.{}."
BERT = Family(
    name="bert",
    model_type="bert",
    model_class=transformers.BertForMaskedLM,
    config_class=transformers.BertConfig,
    encoder="bert",
    head_transform=("cls.predictions.transform",),
    decoder="cls.predictions.decoder",
    modules={
        "word_embeddings": "bert.embeddings.word_embeddings",
        "position_embeddings": "bert.embeddings.position_embeddings",
        "token_type_embeddings": "bert.embeddings.token_type_embeddings",
        "embeddings_norm": "bert.embeddings.LayerNorm",
        "layer.query": _BERT_LAYER + "attention.self.query",
        "layer.key": _BERT_LAYER + "attention.self.key",
        "layer.value": _BERT_LAYER + "attention.self.value",
        "layer.attention_output": _BERT_LAYER + "attention.output.dense",
        "layer.attention_norm": _BERT_LAYER + "attention.output.LayerNorm",
        "layer.feed_forward_in": _BERT_LAYER + "intermediate.dense",
        "layer.feed_forward_out": _BERT_LAYER + "output.dense",
        "layer.output_norm": _BERT_LAYER + "output.LayerNorm",
        "head.dense": "cls.predictions.transform.dense",
        "head.norm": "cls.predictions.transform.LayerNorm",
        "head.decoder": "cls.predictions.decoder",
    },
    config={
        "layers": "num_hidden_layers",
        "hidden": "hidden_size",
        "heads": "num_attention_heads",
        "feed_forward": "intermediate_size",
        "activation": "hidden_act",
        "vocabulary": "vocab_size",
        "positions": "max_position_embeddings",
        "hidden_dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "pad_id": "pad_token_id",
        "initializer_range": "initializer_range",
        "token_types": "type_vocab_size",
        "norm_eps": "layer_norm_eps",
    },
)

_DISTILBERT_LAYER = "distilbert.transformer.layer.{}."
DISTILBERT = Family(
    name="distilbert",
    model_type="distilbert",
    model_class=transformers.DistilBertForMaskedLM,
    config_class=transformers.DistilBertConfig,
    encoder="distilbert",
    head_transform=("vocab_transform", "activation", "vocab_layer_norm"),
    decoder="vocab_projector",
    modules={
        "word_embeddings": "distilbert.embeddings.word_embeddings",
        "position_embeddings": "distilbert.embeddings.position_embeddings",
        "embeddings_norm": "distilbert.embeddings.LayerNorm",
        "layer.query": _DISTILBERT_LAYER + "attention.q_lin",
        "layer.key": _DISTILBERT_LAYER + "attention.k_lin",
        "layer.value": _DISTILBERT_LAYER + "attention.v_lin",
        "layer.attention_output": _DISTILBERT_LAYER + "attention.out_lin",
        "layer.attention_norm": _DISTILBERT_LAYER + "sa_layer_norm",
        "layer.feed_forward_in": _DISTILBERT_LAYER + "ffn.lin1",
        "layer.feed_forward_out": _DISTILBERT_LAYER + "ffn.lin2",
        "layer.output_norm": _DISTILBERT_LAYER + "output_layer_norm",
        "head.dense": "vocab_transform",
        "head.norm": "vocab_layer_norm",
        "head.decoder": "vocab_projector",
    },
    config={
        "layers": "n_layers",
        "hidden": "dim",
        "heads": "n_heads",
        "feed_forward": "hidden_dim",
        "activation": "activation",
        "vocabulary": "vocab_size",
        "positions": "max_position_embeddings",
        "hidden_dropout": "dropout",
        "attention_dropout": "attention_dropout",
        "pad_id": "pad_token_id",
        "initializer_range": "initializer_range",
    },
    layer_norm_eps=1e-12,
)

FAMILIES = {family.name: family for family in (BERT, DISTILBERT)}


def family_of(config: transformers.PreTrainedConfig) -> Family:
    """The family of a model with this config; ConfigError where there is none."""
    for family in FAMILIES.values():
        if family.model_type == config.model_type:
            return family
    raise ConfigError(f"no family for models of type {config.model_type}; there are: {', '.join(FAMILIES)}")
