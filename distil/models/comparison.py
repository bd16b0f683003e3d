"""Which layers of student and teacher the loss compares, resolved against the models that there are."""

from __future__ import annotations

from dataclasses import dataclass

import transformers

from distil.errors import ConfigError
from distil.models.families import family_of
from distil.models.matching import check_relation_heads
from distil.tables import Loss


@dataclass(frozen=True)
class Comparison:
    """Layers are counted from 0; what the loss has no use for is empty or None.

    ``pairs`` are (student's, teacher's) layers whose hidden states are to be alike, ``relations`` the layers whose
    attention relations are. ``projected`` where widths differ, so that hidden states meet through a projection.
    """

    pairs: tuple[tuple[int, int], ...]
    relations: tuple[int, int] | None
    projected: bool

    @classmethod
    def of(
        cls, loss: Loss, student: transformers.PreTrainedConfig, teacher: transformers.PreTrainedConfig
    ) -> Comparison:  # fmt: skip
        """What ``loss`` compares in models of these configs. Raises ConfigError for a layer they lack."""
        width, depth = _numbers(student)
        teacher_width, teacher_depth = _numbers(teacher)
        pairs = (loss.hidden_pairs or evenly(depth, teacher_depth)) if loss.alpha_hidden > 0 else ()
        for own, other in pairs:
            _check_layer("hidden_layers", own, depth, "student")
            _check_layer("hidden_layers", other, teacher_depth, "teacher")
        relations = None
        if loss.alpha_relations > 0:
            other = teacher_depth - 1 if loss.relation_layer == -1 else loss.relation_layer
            _check_layer("relation_layer", other, teacher_depth, "teacher")
            check_relation_heads(width, loss.relation_heads, "student", teacher_width)
            check_relation_heads(teacher_width, loss.relation_heads, "teacher", width)
            relations = (depth - 1, other)
        projected = width != teacher_width and (loss.alpha_cos > 0 or loss.alpha_hidden > 0)
        return cls(pairs, relations, projected)


def evenly(depth: int, teacher_depth: int) -> tuple[tuple[int, int], ...]:
    """Each of the student's layers with one of the teacher's, the last with the last: TinyBERT's uniform mapping.

    Jiao et al. 2020, arXiv 1909.10351, section 3.1; rounded where one depth is no multiple of the other.
    """
    return tuple((i, (2 * (i + 1) * teacher_depth + depth) // (2 * depth) - 1) for i in range(depth))


def _numbers(config: transformers.PreTrainedConfig) -> tuple[int, int]:
    family = family_of(config)
    return family.number(config, "hidden"), family.number(config, "layers")


def _check_layer(name: str, layer: int, depth: int, whose: str) -> None:
    if not 0 <= layer < depth:
        raise ConfigError(f"{name}: layer {layer} is out of range: the {whose} has {depth} layers, 0 to {depth - 1}")
