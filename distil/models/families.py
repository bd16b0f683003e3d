"""The families, as data. Adding one is adding an entry, and its name to the tests' list."""

from __future__ import annotations

from dataclasses import replace

import transformers
from torch.nn import functional as F

from distil.errors import ConfigError
from distil.models.family import Family

# What most configs call their numbers.
_NUMBERS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "feed_forward": "intermediate_size",
    "vocabulary": "vocab_size",
    "positions": "max_position_embeddings",
    "pad_id": "pad_token_id",
    "initializer_range": "initializer_range",
}
_BERT_NUMBERS = {
    **_NUMBERS,
    "activation": "hidden_act",
    "token_types": "type_vocab_size",
    "norm_eps": "layer_norm_eps",
}
_BERT_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob")


def _bert_modules(encoder: str) -> dict[str, str]:
    """Embeddings and layers of an encoder written after BERT's."""
    embeddings, layer = f"{encoder}.embeddings.", encoder + ".encoder.layer.{}."
    return {
        "word_embeddings": embeddings + "word_embeddings",
        "position_embeddings": embeddings + "position_embeddings",
        "token_type_embeddings": embeddings + "token_type_embeddings",
        "embeddings_norm": embeddings + "LayerNorm",
        "layer.query": layer + "attention.self.query",
        "layer.key": layer + "attention.self.key",
        "layer.value": layer + "attention.self.value",
        "layer.attention_output": layer + "attention.output.dense",
        "layer.attention_norm": layer + "attention.output.LayerNorm",
        "layer.feed_forward_in": layer + "intermediate.dense",
        "layer.feed_forward_out": layer + "output.dense",
        "layer.output_norm": layer + "output.LayerNorm",
    }


BERT = Family(
    name="bert",
    model_type="bert",
    model_class=transformers.BertForMaskedLM,
    encoder="bert",
    head_transform=("cls.predictions.transform",),
    decoder="cls.predictions.decoder",
    modules={
        **_bert_modules("bert"),
        "head.dense": "cls.predictions.transform.dense",
        "head.norm": "cls.predictions.transform.LayerNorm",
        "head.decoder": "cls.predictions.decoder",
    },
    config=_BERT_NUMBERS,
    dropouts=_BERT_DROPOUTS,
)

_DISTILBERT_LAYER = "distilbert.transformer.layer.{}."
DISTILBERT = Family(
    name="distilbert",
    model_type="distilbert",
    model_class=transformers.DistilBertForMaskedLM,
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
        **_NUMBERS,
        "layers": "n_layers",
        "hidden": "dim",
        "heads": "n_heads",
        "feed_forward": "hidden_dim",
        "activation": "activation",
    },
    dropouts=("dropout", "attention_dropout"),
    layer_norm_eps=1e-12,
)

ROBERTA = Family(
    name="roberta",
    model_type="roberta",
    model_class=transformers.RobertaForMaskedLM,
    encoder="roberta",
    head_transform=("lm_head.dense", F.gelu, "lm_head.layer_norm"),
    decoder="lm_head.decoder",
    modules={
        **_bert_modules("roberta"),
        "head.dense": "lm_head.dense",
        "head.norm": "lm_head.layer_norm",
        "head.decoder": "lm_head.decoder",
    },
    config=_BERT_NUMBERS,
    dropouts=_BERT_DROPOUTS,
    positions_after_pad=True,
)

XLM_ROBERTA = replace(
    ROBERTA, name="xlm-roberta", model_type="xlm-roberta", model_class=transformers.XLMRobertaForMaskedLM
)

_ALBERT_LAYER = "albert.encoder.albert_layer_groups.0.albert_layers.0."  # all layers are this one
ALBERT = Family(
    name="albert",
    model_type="albert",
    model_class=transformers.AlbertForMaskedLM,
    encoder="albert",
    head_transform=("predictions.dense", "predictions.activation", "predictions.LayerNorm"),
    decoder="predictions.decoder",
    modules={
        "word_embeddings": "albert.embeddings.word_embeddings",
        "position_embeddings": "albert.embeddings.position_embeddings",
        "token_type_embeddings": "albert.embeddings.token_type_embeddings",
        "embeddings_norm": "albert.embeddings.LayerNorm",
        "embeddings_out": "albert.encoder.embedding_hidden_mapping_in",
        "layer.query": _ALBERT_LAYER + "attention.query",
        "layer.key": _ALBERT_LAYER + "attention.key",
        "layer.value": _ALBERT_LAYER + "attention.value",
        "layer.attention_output": _ALBERT_LAYER + "attention.dense",
        "layer.attention_norm": _ALBERT_LAYER + "attention.LayerNorm",
        "layer.feed_forward_in": _ALBERT_LAYER + "ffn",
        "layer.feed_forward_out": _ALBERT_LAYER + "ffn_output",
        "layer.output_norm": _ALBERT_LAYER + "full_layer_layer_norm",
        "head.dense": "predictions.dense",
        "head.norm": "predictions.LayerNorm",
        "head.decoder": "predictions.decoder",
    },
    config=_BERT_NUMBERS,
    dropouts=_BERT_DROPOUTS,
    requires={"num_hidden_groups": 1, "inner_group_num": 1},
)

MODERNBERT = Family(
    name="modernbert",
    model_type="modernbert",
    model_class=transformers.ModernBertForMaskedLM,
    encoder="model",
    head_transform=("head",),
    decoder="decoder",
    modules={
        "word_embeddings": "model.embeddings.tok_embeddings",
        "embeddings_norm": "model.embeddings.norm",
        "layer.input_norm": "model.layers.{}.attn_norm",
        "layer.query_key_value": "model.layers.{}.attn.Wqkv",
        "layer.attention_output": "model.layers.{}.attn.Wo",
        "layer.middle_norm": "model.layers.{}.mlp_norm",
        "layer.feed_forward_in": "model.layers.{}.mlp.Wi",
        "layer.feed_forward_out": "model.layers.{}.mlp.Wo",
        "last_norm": "model.final_norm",
        "head.dense": "head.dense",
        "head.norm": "head.norm",
        "head.decoder": "decoder",
    },
    config={**_NUMBERS, "activation": "hidden_activation", "norm_eps": "norm_eps"},
    dropouts=("attention_dropout", "embedding_dropout", "mlp_dropout"),
    stacked={"layer.query_key_value": 3, "layer.feed_forward_in": 2},  # the second half of the latter gates the first
    per_layer=("layer_types",),  # which layers look around themselves only
    even_heads=True,
)

GPT2 = Family(
    name="gpt2",
    model_type="gpt2",
    model_class=transformers.GPT2LMHeadModel,
    encoder="transformer",
    head_transform=(),
    decoder="lm_head",
    modules={
        "word_embeddings": "transformer.wte",
        "position_embeddings": "transformer.wpe",
        "layer.input_norm": "transformer.h.{}.ln_1",
        "layer.query_key_value": "transformer.h.{}.attn.c_attn",
        "layer.attention_output": "transformer.h.{}.attn.c_proj",
        "layer.middle_norm": "transformer.h.{}.ln_2",
        "layer.feed_forward_in": "transformer.h.{}.mlp.c_fc",
        "layer.feed_forward_out": "transformer.h.{}.mlp.c_proj",
        "last_norm": "transformer.ln_f",
        "head.decoder": "lm_head",
    },
    config={
        **_NUMBERS,
        "layers": "n_layer",
        "hidden": "n_embd",
        "heads": "n_head",
        "feed_forward": "n_inner",
        "positions": "n_positions",
        "activation": "activation_function",
        "norm_eps": "layer_norm_epsilon",
    },
    dropouts=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    stacked={"layer.query_key_value": 3},
    causal=True,
    requires={"scale_attn_by_inverse_layer_idx": False, "add_cross_attention": False},
)

FAMILIES = {family.name: family for family in (BERT, DISTILBERT, ROBERTA, XLM_ROBERTA, ALBERT, MODERNBERT, GPT2)}


def family_of(config: transformers.PreTrainedConfig) -> Family:
    """The family of a model with this config.

    Raises ConfigError where there is none, or where the model's layers are not each other's like.
    """
    for family in FAMILIES.values():
        if config.model_type == family.model_type:
            for name, value in family.requires.items():
                if getattr(config, name) != value:
                    raise ConfigError(
                        f"a {family.name} with {name} {getattr(config, name)} cannot give layers to a student, "
                        f"only one with {value}"
                    )
            return family
    raise ConfigError(f"no family for models of type {config.model_type}; there are: {', '.join(FAMILIES)}")
