"""A small random model of each family."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import transformers
from torch import nn

from distil.models.families import FAMILIES
from distil.models.shape import shape_of, student_config
from distil.models.student import make_student
from distil.tables import Model

VOCAB, LAYERS, POSITIONS = 97, 4, 40
_BERT = dict(
    hidden_size=32, num_hidden_layers=LAYERS, num_attention_heads=4, intermediate_size=48, hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0, max_position_embeddings=POSITIONS,
)  # fmt: skip
# Pad ids that are not 0, positions counted from them, windows shorter than sequences, embeddings narrower than layers.
SHAPES = {
    "bert": _BERT,
    "distilbert": dict(
        dim=32, n_layers=LAYERS, n_heads=4, hidden_dim=48, dropout=0.0, attention_dropout=0.0,
        max_position_embeddings=POSITIONS,
    ),
    "roberta": _BERT
    | dict(pad_token_id=1, max_position_embeddings=POSITIONS + 2, type_vocab_size=1, layer_norm_eps=1e-5),
    "xlm-roberta": _BERT | dict(pad_token_id=3, max_position_embeddings=POSITIONS + 4, layer_norm_eps=1e-5),
    "albert": _BERT | dict(embedding_size=20, pad_token_id=2),
    "modernbert": dict(
        hidden_size=32, num_hidden_layers=LAYERS, num_attention_heads=4, intermediate_size=24, pad_token_id=4,
        max_position_embeddings=POSITIONS, local_attention=6, bos_token_id=1, eos_token_id=2, cls_token_id=1,
        sep_token_id=2,
    ),
    "gpt2": dict(
        n_embd=32, n_layer=LAYERS, n_head=4, n_positions=POSITIONS, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=0, eos_token_id=0,
    ),
}  # fmt: skip
ATTENTION_DROPOUT = {"bert": "attention_probs_dropout_prob", "gpt2": "attn_pdrop"} | dict.fromkeys(
    ("distilbert", "modernbert"), "attention_dropout"
)  # one name for each way to be called
assert SHAPES.keys() == FAMILIES.keys()


def config(family: str, **changes: object) -> transformers.PreTrainedConfig:
    """A config of a small model."""
    return FAMILIES[family].config_class(**{"vocab_size": VOCAB, **SHAPES[family], **changes})


def randomised(model: nn.Module, seed: int = 0, scale: float = 0.2) -> nn.Module:
    """The model with every parameter random, norms and biases included: as made, many are 0 or 1 alike."""
    draw = torch.Generator().manual_seed(seed)
    norms = {id(m.weight) for m in model.modules() if isinstance(m, nn.LayerNorm)}
    with torch.no_grad():
        for parameter in model.parameters():
            near_one = float(id(parameter) in norms)
            parameter.copy_(torch.randn(parameter.shape, generator=draw) * scale + near_one)
    return model.eval()


def tiny(family: str, seed: int = 0, **changes: object) -> transformers.PreTrainedModel:
    """A small model with every parameter random, in eval mode."""
    return randomised(FAMILIES[family].model_class(config(family, **changes)), seed)


def asked(family: str, layers: Iterable[int] = (), dropout: float = 0.0, **more: object) -> Model:
    """What a recipe asks of a student."""
    return Model(teacher="", student=family, student_layers=tuple(layers), dropout=dropout, **more)


def shaped(teacher: transformers.PreTrainedConfig, *how: object, **more: object) -> transformers.PreTrainedConfig:
    """Config of such a student."""
    return student_config(teacher, shape_of(teacher, asked(*how, **more)))


def student_of(teacher: transformers.PreTrainedModel, *how: object, **more: object) -> transformers.PreTrainedModel:
    """Such a student, with its teacher's weights."""
    return make_student(teacher, shape_of(teacher.config, asked(*how, **more)), "teacher", 0).model


def bert_config(**changes: object) -> transformers.BertConfig:
    """A BERT of six layers, with nothing at its default."""
    shape = dict(
        vocab_size=97, hidden_size=32, num_hidden_layers=6, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=40, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3, pad_token_id=7,
        initializer_range=0.5,
    )  # fmt: skip
    return transformers.BertConfig(**{**shape, **changes})
