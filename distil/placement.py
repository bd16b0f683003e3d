"""Placement: a ds_config resolved against a recipe, a number of ranks and what the device can compute in.

"auto" in a ds_config means that the recipe owns the number (the convention of Hugging Face's DeepSpeed integration).
Batch sizes count sequences of ``max_length`` tokens, so DeepSpeed's own identity
``train_batch_size = micro-batch x accumulation x ranks`` holds for token budgets too.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from distil.errors import ConfigError
from distil.tables import Optimizer

# Blocks whose numbers the recipe owns outright: a ds_config that carries one trains something else.
FOREIGN_BLOCKS = {
    "scheduler": "the schedule is the recipe's (lr, warmup_fraction, epochs, steps)",
    "data_efficiency": "the order of the data is the recipe's plan",
    "curriculum_learning": "the order of the data is the recipe's plan",
    "torch_autocast": "weights are in the type of fp16 or bf16 already",
    "amp": "apex.amp was removed from apex; use fp16 or bf16",
    "activation_checkpointing": "it is not wired to the student",
}
ALIASES = {"train_micro_batch_size_per_gpu": "micro_batch_size", "train_batch_size": "batch_size"}


class Batches(Protocol):
    """Sizes in sequences: of a global batch, of a micro-batch, and the latter's number in the former."""

    @property
    def batch_size(self) -> int: ...
    @property
    def micro_batch_size(self) -> int: ...
    @property
    def micro_batches(self) -> int: ...


class Numbers(Protocol):
    """As much of a recipe, or of what else is trained, as a ds_config is held against."""

    @property
    def called(self) -> str:
        """What it is called in a message."""

    @property
    def data(self) -> Batches: ...
    @property
    def optimizer(self) -> Optimizer: ...


@dataclass(frozen=True)
class Placement:
    """A ds_config with every "auto" filled, and what was decided on the way.

    ``config`` goes to DeepSpeed as it is; ``compiled`` is whether the models' layers are compiled; ``notes`` are the
    lines a user should read.
    """

    path: str
    config: dict[str, Any]
    precision: str
    zero_stage: int
    ranks: int
    accumulation: int
    notes: tuple[str, ...]
    compiled: bool = False


def read_ds_config(path: str | Path) -> dict[str, Any]:
    """The JSON object in a ds_config file; ConfigError says what is wrong and where."""
    path = Path(path)
    try:
        config = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_no_duplicates)
    except FileNotFoundError:
        raise ConfigError(f"no ds_config at {path}; those that ship are in ds_config/") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"ds_config {path} cannot be read: {error}") from error
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"ds_config {path}: not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        ) from None
    except ValueError as error:
        raise ConfigError(f"ds_config {path}: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"ds_config {path}: a JSON object is needed, not {type(config).__name__}")
    return config


def place(
    path: str | Path, recipe: Numbers, ranks: int, device: str, precisions: Collection[str], asked: str,
    compiled: bool = False,
) -> Placement:  # fmt: skip
    """Resolve the ds_config at ``path`` for ``ranks`` ranks of a device that computes in ``precisions``.

    ``asked`` is a precision the user insists on, or "auto" for the file's own where the device has it.
    ``compiled`` asks for layers that are compiled. Ranks that the micro-batches do not divide among leave places empty,
    which a note says. Raises ConfigError for bad JSON and for a number that contradicts the recipe.
    """
    config = copy.deepcopy(read_ds_config(path))
    for block, why in FOREIGN_BLOCKS.items():
        if block in config:
            raise ConfigError(f"ds_config {path}: remove {block}: {why}")
    for name in ("fp16", "bf16", "zero_optimization", "optimizer"):
        _require_object(path, name, config.get(name, {}))
    accumulation = -(-recipe.data.micro_batches // ranks)
    owned = {
        "train_batch_size": recipe.data.batch_size,
        "train_micro_batch_size_per_gpu": recipe.data.micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": recipe.optimizer.max_grad_norm,
    }
    for name, value in owned.items():
        config[name] = _settle(path, recipe, name, config.get(name, "auto"), value)
    _settle_optimizer(path, recipe, config)
    # DeepSpeed's own identity, which counts the empty places of ranks the batch does not divide among.
    config["train_batch_size"] = recipe.data.micro_batch_size * accumulation * ranks
    precision, notes = _settle_precision(path, config, device, precisions, asked)
    config.setdefault("steps_per_print", 2**31)  # our own monitor speaks instead
    stage = _zero_stage(path, config)
    if precision == "bf16" and stage == 1:
        # Else the sum over an accumulation keeps the 8 bits of bf16, of which the last addends lose most.
        config.setdefault("data_types", {}).setdefault("grad_accum_dtype", "fp32")
    notes += _idle_note(recipe, ranks, accumulation)
    notes += ["layers are compiled by torch.compile, at the first steps"] if compiled else []
    if left := _autos(config):
        raise ConfigError(f'ds_config {path}: {left} is "auto", which nothing here fills; give it a value')
    if compiled and stage == 3:
        raise ConfigError(f"--compile and ZeRO stage 3 of ds_config {path} do not go together; leave one of them out")
    return Placement(str(path), config, precision, stage, ranks, accumulation, tuple(notes), compiled)


def _idle_note(recipe: Numbers, ranks: int, accumulation: int) -> list[str]:
    total = recipe.data.micro_batches
    if total == accumulation * ranks:
        return []
    fitting = accumulation * ranks * recipe.data.micro_batch_size
    return [
        f"{total} micro-batches do not divide among {ranks} ranks: {accumulation * ranks - total} of "
        f"{accumulation * ranks} places stay empty; --batch_size {fitting} would fill them"
    ]


def _settle(path: str | Path, recipe: Numbers, name: str, stated: Any, owned: float) -> float:
    if stated == "auto" or (isinstance(stated, int | float) and not isinstance(stated, bool) and stated == owned):
        return owned
    if name == "gradient_accumulation_steps":
        source = f"{recipe.called} and the number of ranks make it {owned}"
    else:
        source = f"{recipe.called} says {ALIASES.get(name, name)} = {owned}"
    raise ConfigError(
        f'{name} is {stated!r} in ds_config {path} but {source}; write "auto" there or override the recipe'
    )


def _settle_optimizer(path: str | Path, recipe: Numbers, config: dict[str, Any]) -> None:
    block = config.setdefault("optimizer", {"type": "AdamW", "params": {"torch_adam": True}})
    if str(block.get("type", "")).lower() != "adamw":
        raise ConfigError(f"ds_config {path}: optimizer must be of type AdamW, which the recipe's numbers are for")
    params = block.setdefault("params", {})
    _require_object(path, "optimizer.params", params)
    o = recipe.optimizer
    owned = {"lr": o.lr, "eps": o.adam_eps, "weight_decay": o.weight_decay}
    for name, value in owned.items():
        params[name] = _settle(path, recipe, name, params.get(name, "auto"), value)
    betas = [o.adam_beta1, o.adam_beta2]
    if params.get("betas", "auto") not in ("auto", betas):
        raise ConfigError(f"betas are {params['betas']} in ds_config {path} but {betas} in {recipe.called}")
    params["betas"] = betas


def _settle_precision(
    path: str | Path, config: dict[str, Any], device: str, precisions: Collection[str], asked: str
) -> tuple[str, list[str]]:
    switches = {name: config.get(name, {}).get("enabled", False) for name in ("fp16", "bf16")}
    for name, switch in switches.items():
        if not isinstance(switch, bool):
            raise ConfigError(f"ds_config {path}: {name}.enabled is {switch!r}; it must be true or false")
    enabled = [name for name, switch in switches.items() if switch]
    if len(enabled) > 1:
        raise ConfigError(f"ds_config {path}: fp16 and bf16 are both enabled; keep one")
    stated = enabled[0] if enabled else "fp32"
    chosen = asked if asked != "auto" else stated
    notes = []
    if asked == "auto" and stated not in precisions:
        # bf16 before fp32: half the memory, and on devices that have it the speed too; fp16 where there is no bf16.
        chosen = next(name for name in ("bf16", "fp16", "fp32") if name in precisions and name != stated)
        notes.append(f"{stated} of {path} is not for this device ({device}): running in {chosen}; --precision insists")
    for name in ("fp16", "bf16"):
        if name == chosen:
            config.setdefault(name, {})["enabled"] = True
        else:
            config.pop(name, None)
    return chosen, notes


def _zero_stage(path: str | Path, config: dict[str, Any]) -> int:
    stage = config.setdefault("zero_optimization", {"stage": 0}).get("stage", 0)
    if type(stage) is not int or stage not in (0, 1, 2, 3):
        raise ConfigError(f"ds_config {path}: zero_optimization.stage is {stage!r}; it must be 0, 1, 2 or 3")
    return stage


def _require_object(path: str | Path, name: str, block: Any) -> None:
    if not isinstance(block, dict):
        raise ConfigError(f"ds_config {path}: {name} is {block!r}; it must be a JSON object")


def _autos(config: Any, where: str = "") -> str:
    if config == "auto":
        return where
    if isinstance(config, list):
        config = dict(enumerate(config))
    if isinstance(config, dict):
        found = (_autos(value, f"{where}.{name}".lstrip(".")) for name, value in config.items())
        return next((name for name in found if name), "")
    return ""


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is stated twice")
    return dict(pairs)
