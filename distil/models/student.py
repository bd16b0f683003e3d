"""The student: its shape taken from the teacher's config, its initial weights from the teacher's layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import transformers
from torch import nn

from distil.errors import ConfigError
from distil.models.families import FAMILIES, Family, family_of


def student_config(
    teacher: transformers.PreTrainedConfig, family: str, layers: Sequence[int], dropout: float
) -> transformers.PreTrainedConfig:
    """Config of a student of ``family`` with one layer for each teacher layer named in ``layers``.

    Raises ConfigError for an unknown family, a layer the teacher does not have, or a teacher whose LayerNorm epsilon
    the family's code cannot take over.
    """
    if family not in FAMILIES:
        raise ConfigError(f"student {family}: no such family; there are: {', '.join(FAMILIES)}")
    source, target = family_of(teacher), FAMILIES[family]
    depth = source.layers_of(teacher)
    for layer in layers:
        if not 0 <= layer < depth:
            raise ConfigError(
                f"student_layers: layer {layer} is out of range: the teacher has {depth} layers, 0 to {depth - 1}"
            )
    eps = getattr(teacher, source.config.get("norm_eps", ""), source.layer_norm_eps)
    if target.layer_norm_eps is not None and eps != target.layer_norm_eps:
        raise ConfigError(f"a {family} student has LayerNorm epsilon {target.layer_norm_eps:g}, the teacher {eps:g}")
    shared = target.config.keys() & source.config.keys()
    values = {target.config[name]: getattr(teacher, source.config[name]) for name in shared}
    values |= {target.config["layers"]: len(layers)}
    values |= {target.config["hidden_dropout"]: dropout, target.config["attention_dropout"]: dropout}
    return target.config_class(**values, tie_word_embeddings=True)


def make_student(
    teacher: transformers.PreTrainedModel, family: str, layers: Sequence[int], dropout: float
) -> transformers.PreTrainedModel:
    """A student in fp32 whose every tensor comes from the teacher.

    Raises ConfigError for a teacher whose decoder is not tied to its embeddings: the student's is. Layer i of
    the student starts as layer ``layers[i]`` of the teacher; embeddings, their LayerNorm and the whole language-model
    head are copied. Where the student has no token-type embedding, the teacher's first one is added to every position,
    so that a full-depth copy computes the teacher's function; where only the student has them, they start at 0.
    """
    config = student_config(teacher.config, family, layers, dropout)
    source, target = family_of(teacher.config), FAMILIES[family]
    if source.module(teacher, "head.decoder").weight is not source.module(teacher, "word_embeddings").weight:
        raise ConfigError("the teacher's decoder is not tied to its embeddings, as the student's would be")
    student = target.model_class(config)
    with torch.no_grad():
        for name in (name for name in target.modules if name in source.modules):
            pairs = enumerate(layers) if name.startswith("layer.") else [(None, None)]
            for own, other in pairs:
                _copy(source.module(teacher, name, other), target.module(student, name, own))
        _fold_token_types(teacher, source, student, target)
    student.tie_weights()
    return student.float()


def _copy(source: nn.Module, target: nn.Module) -> None:
    target.load_state_dict({name: tensor.float() for name, tensor in source.state_dict().items()})


def _fold_token_types(teacher: nn.Module, source: Family, student: nn.Module, target: Family) -> None:
    theirs = source.module(teacher, "token_type_embeddings")
    ours = target.module(student, "token_type_embeddings")
    if theirs is not None and ours is None:
        target.module(student, "position_embeddings").weight += theirs.weight[0].float()
    elif theirs is None and ours is not None:
        ours.weight.zero_()


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Optimiser groups: weight decay on matrices, none on biases and LayerNorms."""
    norms = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters(recurse=False)}
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if id(parameter) in norms or name.endswith("bias") else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
