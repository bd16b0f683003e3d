"""Fields of a table that a file or a command line fills: documented where declared, typed, in range."""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterable
from dataclasses import field
from typing import Any

from distil.errors import ConfigError


def option(help: str, metavar: str | None = None, **default: Any) -> Any:
    """A dataclass field that documents itself where it is declared; ``metavar`` stands for its value in --help."""
    return field(metadata={"help": help, "metavar": metavar}, **default)


def nearest(name: str, known: Iterable[str]) -> str:
    """' (did you mean X?)' for the known name most like this one, or nothing when none is."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]}?)" if match else ""


def fill(group: type, values: dict[str, Any], where: str) -> Any:
    """A dataclass from a table's values. Raises ConfigError for an unknown, a missing or a mistyped one."""
    fields = {f.name: f for f in dataclasses.fields(group)}
    for name in values:
        if name not in fields:
            raise ConfigError(f"{where}: unknown field {name}{nearest(name, fields)}")
    for name, f in fields.items():
        if name not in values and f.default is dataclasses.MISSING:
            raise ConfigError(f"{where}: {name} is missing ({f.metadata['help']})")
    return group(**{name: typed(str(fields[name].type), value, f"{where}: {name}") for name, value in values.items()})


def typed(kind: str, value: Any, where: str) -> Any:
    """A value of a field of type ``kind``, as its annotation is written. Raises ConfigError for another type."""
    if kind == "tuple[int, ...]":
        if isinstance(value, list | tuple) and value and all(type(item) is int for item in value):
            return tuple(value)
        raise ConfigError(f"{where} must be a list of integers, not {value!r}")
    if kind == "tuple[str, ...]":
        entries = [value] if isinstance(value, str) else value
        if isinstance(entries, list | tuple) and entries and all(type(item) is str and item for item in entries):
            return tuple(entries)
        raise ConfigError(f"{where} must be a text or a list of texts, not {value!r}")
    if kind == "float" and type(value) in (int, float) and not math.isinf(value):
        return float(value)  # nan fails every range
    if kind == "float" or type(value).__name__ != kind:
        raise ConfigError(f"{where} must be of type {kind}, not {value!r}")
    return value


def require(holds: bool, name: str, value: object, wanted: str) -> None:
    """Raise ConfigError, saying what was wanted, unless it holds."""
    if not holds:
        raise ConfigError(f"{name} is {value}; it must be {wanted}")
