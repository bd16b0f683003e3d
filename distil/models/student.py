"""The student's initial weights: its teacher's layers, cut to size where it is smaller, or random ones."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
import transformers
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from distil.errors import ConfigError
from distil.models.families import family_of
from distil.models.family import Family
from distil.models.shape import Shape, student_config
from distil.models.task_heads import HEAD, same_head, task_family
from distil.models.task_loading import set_task_
from distil.tables import RANDOM
from distil.tasks.task import Task

# Projections to and from attention heads: their features are heads of so many dimensions.
_TO_HEADS = ("layer.query", "layer.key", "layer.value", "layer.query_key_value")
_FROM_HEADS = ("layer.attention_output",)
Axes = list[tuple[int, ...]]  # of each dimension of a tensor, the sizes of the blocks in blocks that it is


class Student(NamedTuple):
    """A student in fp32, and the common names of its parts that were cut to size, or are random, be it in part."""

    model: transformers.PreTrainedModel
    cut: tuple[str, ...]
    random: tuple[str, ...]


def make_student(teacher: transformers.PreTrainedModel, shape: Shape, initial_weights: str, seed: int) -> Student:
    """A student of ``shape``; layer i of it starts as layer ``shape.layers[i]`` of the teacher.

    Embeddings and the whole language-model head are taken over, too. Where the student is smaller, it gets the first
    rows and columns of each matrix: the first heads of an attention, the first dimensions of each head; of heads that
    are wider than the teacher's, rows without regard to heads. Where it is larger, and everywhere if
    ``initial_weights`` is "random", weights are those of a new model, drawn from ``seed``.
    Where the student has no token-type embedding, the teacher's first one is added to every position, so that a
    full-depth copy computes the teacher's function; where only the student has them, they start at 0.
    Raises ConfigError for a teacher whose decoder is not tied to its embeddings, since the student's is, and for layers
    that cannot stand where they are to.
    """
    source, target = family_of(teacher.config), shape.family
    if source.module(teacher, "head.decoder").weight is not source.module(teacher, "word_embeddings").weight:
        raise ConfigError("the teacher's decoder is not tied to its embeddings, as the student's would be")
    config = student_config(teacher.config, shape)
    return _started(teacher, source, target, config, shape.layers, initial_weights, seed)


def make_task_student(
    teacher: transformers.PreTrainedModel, task: Task, shape: Shape, initial_weights: str, seed: int
) -> Student:
    """A student for ``task`` of a teacher that is fitted to it, started as by ``make_student``, without language model.

    Where both have a head that is built alike, the student's starts as the teacher's, else it is drawn from ``seed``.
    Raises ConfigError for layers that cannot stand where they are to.
    """
    source, target = (task_family(family, task.kind) for family in (family_of(teacher.config), shape.family))
    if not same_head(source, target):
        source = replace(source, modules={n: path for n, path in source.modules.items() if not n.startswith(HEAD)})
    config = student_config(teacher.config, shape)
    set_task_(config, task)
    return _started(teacher, source, target, config, shape.layers, initial_weights, seed)


def _started(
    teacher: transformers.PreTrainedModel, source: Family, target: Family, config: transformers.PreTrainedConfig,
    layers: tuple[int, ...], initial_weights: str, seed: int,
) -> Student:  # fmt: skip
    try:
        family_of(config)
        student = _new(target, config, seed)
    except ValueError as error:
        raise ConfigError(f"a {target.name} of this shape cannot be made: {error}") from error
    if initial_weights == RANDOM:
        return Student(student, (), tuple(target.modules))
    cut, random = [], []
    with torch.no_grad():
        for name in target.modules:
            if name not in source.modules:
                random.append(name)
                continue
            for own, other in enumerate(layers) if name.startswith("layer.") else [(None, None)]:
                theirs, ours = source.module(teacher, name, other), target.module(student, name, own)
                _check_alike(name, theirs, ours, own, other)
                fates = {_take(name, key, (source, teacher, theirs), (target, student, ours)) for key in _keys(ours)}
            (random if "random" in fates else cut).extend([name] if fates - {"whole"} else [])
        _settle_token_types(teacher, source, student, target, random)
    student.tie_weights()
    return Student(student, tuple(cut), tuple(random))


def _new(family: Family, config: transformers.PreTrainedConfig, seed: int) -> transformers.PreTrainedModel:
    """A new model, the same on every rank, whatever has been drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return family.model_class(config).float()


def _keys(module: nn.Module) -> list[str]:
    return list(module.state_dict())


def _check_alike(name: str, theirs: nn.Module, ours: nn.Module, own: int | None, other: int | None) -> None:
    if _keys(theirs) != _keys(ours):
        if own is None:
            where, remedy = "the student's cannot start as the teacher's", "choose another --student"
        else:
            where, remedy = f"layer {own} of the student cannot start as layer {other}", "choose other --student_layers"
        raise ConfigError(
            f"{name.removeprefix('layer.')}: {where}: they are not built alike; {remedy}, or --initial_weights random"
        )


Holder = tuple[Family, nn.Module, nn.Module]


def _take(name: str, key: str, source: Holder, target: Holder) -> str:
    """Copy one tensor, cut to size; returns "whole", "cut", or "random" where the student's is left as it is."""
    theirs, ours = source[2].state_dict()[key].float(), target[2].state_dict()[key]
    if name == "position_embeddings":
        theirs, ours = _same_positions(theirs, ours, source, target)
    for by_heads in (True, False):  # heads of more dimensions than the teacher's have rows of several of its heads
        have, want = (_axes(name, tensor, *holder, by_heads) for tensor, holder in ((theirs, source), (ours, target)))
        flat_have, flat_want = [n for axis in have for n in axis], [n for axis in want for n in axis]
        if len(flat_have) == len(flat_want) and all(m <= n for m, n in zip(flat_want, flat_have, strict=True)):
            ours.copy_(theirs.reshape(flat_have)[tuple(slice(n) for n in flat_want)].reshape(ours.shape))
            return "whole" if have == want and by_heads else "cut"
    return "random"


def _same_positions(theirs: Tensor, ours: Tensor, source: Holder, target: Holder) -> tuple[Tensor, Tensor]:
    """Rows of two position tables that stand for the same positions."""
    first = [family.first_position(model.config) for family, model, _ in (source, target)]
    if first[0] == first[1]:
        return theirs, ours
    return theirs[first[0] :], ours[first[1] :]


def _axes(name: str, tensor: Tensor, family: Family, model: nn.Module, module: nn.Module, by_heads: bool) -> Axes:
    """How the dimensions of a tensor are made up: an output may be several blocks, or heads of some dimensions each."""
    stack, heads = family.stacked.get(name, 1), family.number(model.config, "heads")

    def outputs(size: int) -> tuple[int, ...]:
        return (stack, heads, size // (stack * heads)) if name in _TO_HEADS and by_heads else (stack, size // stack)

    def inputs(size: int) -> tuple[int, ...]:
        return (heads, size // heads) if name in _FROM_HEADS and by_heads else (size,)

    if tensor.dim() == 1:
        return [outputs(len(tensor))]
    rows, columns = tensor.shape
    if isinstance(module, Conv1D):  # GPT-2 keeps its matrices the other way round
        return [inputs(rows), outputs(columns)]
    return [outputs(rows), inputs(columns)]


def _settle_token_types(
    teacher: nn.Module, source: Family, student: nn.Module, target: Family, random: list[str]
) -> None:
    theirs = source.module(teacher, "token_type_embeddings")
    ours = target.module(student, "token_type_embeddings")
    positions = target.module(student, "position_embeddings")
    if theirs is not None and ours is None and positions is not None and "position_embeddings" not in random:
        positions.weight += theirs.weight[0, : positions.weight.shape[1]].float()
    elif theirs is None and ours is not None:
        ours.weight.zero_()
        random.remove("token_type_embeddings")


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Optimiser groups: weight decay on matrices, none on biases and LayerNorms."""
    norms = {id(p) for m in model.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters(recurse=False)}
    decayed, plain = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (plain if id(parameter) in norms or name.endswith("bias") else decayed).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
