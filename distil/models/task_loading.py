"""Models for a task: one to be fine-tuned, from a language model or a fitted one, and one that is fitted already."""

from __future__ import annotations

import re

import torch
import transformers
from torch import nn

from distil.errors import DataError
from distil.models.families import family_of
from distil.models.family import Family
from distil.models.loading import from_checkpoint, load_config, refuse_incomplete
from distil.models.task_heads import HEAD, task_family
from distil.tasks.task import CLASSIFICATION, REGRESSION, SPANS, Task

_GENERIC = re.compile(r"LABEL_\d+")  # what transformers calls classes that nobody has named
_PROBLEMS = {CLASSIFICATION: "single_label_classification", REGRESSION: "regression"}


def set_task_(config: transformers.PreTrainedConfig, task: Task) -> None:
    """Write into a config, in place, that its model is for ``task``: labels, kind of problem, the task's name.

    A causal model that has no pad gets its end for one: the stock model looks there where a sequence ends.
    """
    names = task.labels if task.kind == CLASSIFICATION else [f"LABEL_{i}" for i in range(task.outputs)]
    config.id2label = dict(enumerate(names))
    config.label2id = {name: i for i, name in enumerate(names)}
    config.problem_type = _PROBLEMS.get(task.kind)
    config.finetuning_task = task.name
    if family_of(config).causal and config.pad_token_id is None:
        end = config.eos_token_id
        config.pad_token_id = end[0] if isinstance(end, list) else end


def load_task_model(
    name_or_dir: str, task: Task, dtype: torch.dtype, seed: int
) -> tuple[transformers.PreTrainedModel, Family, tuple[str, ...]]:
    """A model to be fine-tuned for ``task``, in training mode, its family, and the names of its tensors that are new.

    The checkpoint may be a language model, whose own head is left behind, or have a task's head, which is kept; the
    last layer of that is made anew where its labels are others. What is new is drawn from ``seed``, whatever has been
    drawn before. Raises DataError where the encoder is not whole, ConfigError for a model of no known family.
    """
    config = load_config(name_or_dir)
    family = task_family(family_of(config), task.kind)
    kept = _other_kind(config, family) is None and _other_labels(config, task) is None
    set_task_(config, task)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model, missing, mismatched = from_checkpoint(name_or_dir, family, config, dtype)
        head = _head_tensors(model, family)
        of_encoder = [[name for name in names if name not in head] for names in (missing, mismatched)]
        refuse_incomplete(name_or_dir, *of_encoder)
        fresh = {*missing, *mismatched}
        if not kept:
            fresh |= _renew_decoder(model, family)
    return model.train(), family, tuple(sorted(fresh))


def load_fitted_model(name_or_dir: str, task: Task, dtype: torch.dtype) -> tuple[transformers.PreTrainedModel, Family]:
    """A model that is fitted to ``task``, in eval mode and without gradients, and its family.

    Raises DataError for a model without such a head, and for one that has other labels, or the same in another order;
    labels that nobody has named are taken by their number. Raises ConfigError for a model of no known family.
    """
    config = load_config(name_or_dir)
    family = task_family(family_of(config), task.kind)
    if what := _other_kind(config, family):
        raise _not_fitted(name_or_dir, what, family, task)
    fitted_to = getattr(config, "finetuning_task", None)
    if task.kind == SPANS and fitted_to and fitted_to != task.name:  # labels would tell, and spans have none
        raise _not_fitted(name_or_dir, f"it is fitted to {fitted_to}", family, task)
    if theirs := _other_labels(config, task):
        ours = ", ".join(task.labels) or "a single value"
        raise DataError(
            f"model {name_or_dir} says {theirs}, the task {task.name} asks for {ours}: give a model that is fitted to "
            "this task, or, if these are the same labels under other names, name them so in its config.json"
        )
    set_task_(config, task)
    model, missing, mismatched = from_checkpoint(name_or_dir, family, config, dtype)
    if missing and set(missing) <= _head_tensors(model, family):
        raise _not_fitted(name_or_dir, f"{len(missing)} tensors such as {missing[0]} are missing", family, task)
    refuse_incomplete(name_or_dir, missing, mismatched)
    return model.requires_grad_(False), family


def _not_fitted(name_or_dir: str, what: str, family: Family, task: Task) -> DataError:
    return DataError(
        f"model {name_or_dir} is no {family.model_class.__name__} that is fitted to {task.name}: {what}; fit it first: "
        f"launch/finetune.py --task {task.name} --model {name_or_dir}"
    )


def _other_kind(config: transformers.PreTrainedConfig, family: Family) -> str | None:
    """What a config says its model is, where that is another class than the family's; None also where it does not."""
    stated = config.architectures or []
    return None if not stated or family.model_class.__name__ in stated else f"its class is {' or '.join(stated)}"


def _other_labels(config: transformers.PreTrainedConfig, task: Task) -> str | None:
    """A config's labels, where they are not the task's; those of SPANS mean nothing."""
    names = [str(config.id2label[i]) for i in sorted(config.id2label)]
    same = [name.casefold() for name in names] == [name.casefold() for name in task.labels]
    unnamed = task.kind == REGRESSION or all(map(_GENERIC.fullmatch, names))
    if task.kind == SPANS or same or (unnamed and len(names) == task.outputs):
        return None
    return ", ".join(names)


def _head_tensors(model: nn.Module, family: Family) -> set[str]:
    """Names of the tensors of a model's head."""
    paths = [path for name, path in family.modules.items() if name.startswith(HEAD)]
    return {f"{path}.{name}" for path in paths for name in model.get_submodule(path).state_dict()}


def _renew_decoder(model: transformers.PreTrainedModel, family: Family) -> set[str]:
    """Give a model's head another last layer, as a new model's; returns the names of its tensors."""
    there = model.get_submodule(family.decoder)
    another = nn.Linear(there.in_features, there.out_features, there.bias is not None, dtype=there.weight.dtype)
    model._init_weights(another)
    model.set_submodule(family.decoder, another)
    return {f"{family.decoder}.{name}" for name in another.state_dict()}
