"""The shape of a student: worked out from its teacher's config and what the recipe asks for."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import transformers

from distil.errors import ConfigError
from distil.fields import nearest
from distil.models.families import FAMILIES, family_of
from distil.models.family import Family
from distil.tables import RANDOM, SAME, Model

# What a config of another family takes over: whatever both families name, but for what the shape itself says.
_OF_SHAPE = ("layers", "hidden", "heads", "feed_forward", "positions")


@dataclass(frozen=True)
class Shape:
    """A student: its family, the teacher's layer behind each of its own, and its sizes."""

    family: Family
    layers: tuple[int, ...]
    hidden: int
    heads: int
    feed_forward: int
    dropout: float


def spread(depth: int, of: int) -> tuple[int, ...]:
    """``depth`` of ``of`` layers, evenly spread, first and last included; of 12 layers 6 are 0 2 4 7 9 11.

    Those are the layers that the published training code takes (scripts/extract.py). A student deeper than its
    teacher has layers twice; a single layer is the first.
    """
    if depth == 1:
        return (0,)
    return tuple((2 * i * (of - 1) + depth - 1) // (2 * (depth - 1)) for i in range(depth))  # rounded, half upwards


def shape_of(teacher: transformers.PreTrainedConfig, model: Model) -> Shape:
    """The student's shape. Raises ConfigError for what cannot be made of this teacher."""
    source = family_of(teacher)
    if model.student != SAME and model.student not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise ConfigError(
            f"student {model.student}: no such family{nearest(model.student, FAMILIES)}; there are: {known}, or {SAME}"
        )
    target = source if model.student == SAME else FAMILIES[model.student]
    if target.causal != source.causal:
        fitting = ", ".join(family.name for family in FAMILIES.values() if family.causal == source.causal)
        raise ConfigError(
            f"student {target.name}: it predicts {_says(target)}, the teacher, a {source.name}, {_says(source)}; give "
            f"--student {SAME}, or one of: {fitting}"
        )
    for name in target.per_layer:
        if not hasattr(teacher, name):
            raise ConfigError(
                f"student {target.name}: its layers have {name} of their teacher's, and a {source.name} has none; give "
                f"--student {SAME}, or another family"
            )
    depth = source.number(teacher, "layers")
    layers = model.student_layers or spread(model.student_depth or depth, depth)
    for layer in layers:
        if not 0 <= layer < depth:
            raise ConfigError(
                f"student_layers: layer {layer} is out of range: the teacher has {depth} layers, 0 to {depth - 1}"
            )
    eps = getattr(teacher, source.config.get("norm_eps", ""), source.layer_norm_eps)
    if target.layer_norm_eps is not None and eps != target.layer_norm_eps:
        raise ConfigError(
            f"a {target.name} student has LayerNorm epsilon {target.layer_norm_eps:g}, the teacher {eps:g}; give "
            f"--student {SAME}, or another family"
        )
    if target.one_layer and not source.one_layer and len(set(layers)) > 1 and model.initial_weights != RANDOM:
        raise ConfigError(
            f"student {target.name}: all its layers are one, which cannot start as {len(set(layers))}; give "
            "--initial_weights random"
        )
    hidden, heads, feed_forward = _sizes(teacher, source, model)
    if target.even_heads and hidden // heads % 2:
        raise ConfigError(
            f"student_hidden {hidden} with {heads} heads: {hidden // heads} dimensions a head, which must be an even "
            f"number in a {target.name}; give other --student_hidden or --student_heads"
        )
    return Shape(target, layers, hidden, heads, feed_forward, model.dropout)


def _says(family: Family) -> str:
    return "the next token" if family.causal else "masked tokens"


def _sizes(teacher: transformers.PreTrainedConfig, source: Family, model: Model) -> tuple[int, int, int]:
    """Width, heads and feed-forward size."""
    theirs = {name: source.number(teacher, name) for name in ("hidden", "heads", "feed_forward")}
    hidden = model.student_hidden or theirs["hidden"]
    a_head = theirs["hidden"] // theirs["heads"]
    # The fewest heads that are no wider than the teacher's, whose first dimensions they then start as.
    heads = model.student_heads or next(n for n in range(1, hidden + 1) if hidden % n == 0 and hidden // n <= a_head)
    if not model.student_heads and hidden // heads < min(hidden, a_head // 2):
        fitting = [multiple for multiple in (hidden // a_head * a_head, -(-hidden // a_head) * a_head) if multiple]
        raise ConfigError(
            f"student_hidden {hidden} makes no heads of about {a_head} dimensions, as the teacher's are; give "
            f"--student_hidden {' or '.join(map(str, fitting))}, or --student_heads too"
        )
    if hidden % heads:
        raise ConfigError(
            f"student_hidden {hidden} is no multiple of {heads} attention heads; give "
            f"--student_hidden {-(-hidden // heads) * heads} or --student_heads {_divisor(hidden, heads)}"
        )
    feed_forward = model.student_feed_forward or theirs["feed_forward"] * hidden // theirs["hidden"]
    return hidden, heads, max(1, feed_forward)


def _divisor(number: int, near: int) -> int:
    """The divisor of a number that is nearest to another."""
    return min((d for d in range(1, number + 1) if number % d == 0), key=lambda d: abs(d - near))


def student_config(teacher: transformers.PreTrainedConfig, shape: Shape) -> transformers.PreTrainedConfig:
    """Config of a student of this shape: the teacher's own, or what its family shares with the student's.

    Raises ConfigError for sizes that the family's code refuses.
    """
    source, target = family_of(teacher), shape.family
    if target is source:
        config = copy.deepcopy(teacher)
        config.tie_word_embeddings = True
    else:
        shared = (target.config.keys() & source.config.keys()) - set(_OF_SHAPE)
        values = {target.config[name]: getattr(teacher, source.config[name]) for name in shared}
        config = target.config_class(**values, tie_word_embeddings=True)
        for name in ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "mask_token_id"):
            if hasattr(teacher, name) or hasattr(config, name):
                setattr(config, name, getattr(teacher, name, None))  # never the numbers that a class has of its own
        positions = source.longest(teacher) + target.first_position(config)
        setattr(config, target.config["positions"], positions)
    for name in target.per_layer:
        setattr(config, name, [getattr(teacher, name)[layer] for layer in shape.layers])
    sizes = {"layers": len(shape.layers), "hidden": shape.hidden, "heads": shape.heads}
    for name, value in (sizes | {"feed_forward": shape.feed_forward}).items():
        setattr(config, target.config[name], value)
    for name in target.dropouts:
        setattr(config, name, shape.dropout)
    return config
