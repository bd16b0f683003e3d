"""A recipe: the mathematics of one distillation, the same on any cluster.

A recipe file is TOML, one table for each of ``distil.tables``; ``distil/recipes`` holds the ones that ship. With
``base = "NAME"`` at its head it states only what differs from another recipe. Where the job runs (ZeRO stage,
precision, offload) is ``distil.placement``'s matter.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from distil.errors import ConfigError
from distil.fields import fill, nearest
from distil.tables import Data, HeldoutRun, Loss, Masking, Model, Optimizer

RECIPES = Path(__file__).parent / "recipes"
BASE = "base"  # the key that names the recipe that a file starts from
INSTEAD = {"student_layers": "student_depth", "student_depth": "student_layers"}  # naming one drops the other

GROUPS: dict[str, type] = {
    "model": Model, "loss": Loss, "masking": Masking, "data": Data, "optimizer": Optimizer, "run": HeldoutRun,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One published or home-made recipe; ``mathematics`` is what makes two runs the same run."""

    name: str
    model: Model
    loss: Loss
    masking: Masking
    data: Data
    optimizer: Optimizer
    run: HeldoutRun

    @classmethod
    def load(cls, name_or_path: str, overrides: Mapping[str, Any] | None = None) -> Self:
        """Read a shipped recipe by name, or a TOML file by path, and replace fields by name.

        Raises ConfigError for an unknown recipe, table or field (with the nearest match), a missing one, and a
        value of the wrong type or range.
        """
        path = _recipe_path(name_or_path)
        tables = _read(path)
        left = dict(overrides or {})
        groups = {}
        for table, group in GROUPS.items():
            names = {f.name for f in dataclasses.fields(group)}
            given = {name: left.pop(name) for name in names & left.keys()}
            values = _over(tables.get(table, {}), given)
            optional = group is Masking and (not values or values == {"mlm_fraction": 0.0})
            groups[table] = Masking.none() if optional else fill(group, values, where=f"recipe {path}, [{table}]")
        if left:
            raise ConfigError(f"unknown option {next(iter(left))}{nearest(next(iter(left)), field_names())}")
        return cls(name=path.stem, **groups)

    @property
    def called(self) -> str:
        """What it is called in a message."""
        return f"recipe {self.name}"

    def mathematics(self) -> dict[str, dict[str, Any]]:
        """Every field that decides the trained weights, as plain values a JSON file can hold."""
        return {name: _plain(dataclasses.asdict(getattr(self, name))) for name in GROUPS if name != "run"}


def completed(then: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The identity of an earlier run, with fields that ``now`` has and there were none of yet at their defaults."""
    if "mathematics" not in now:  # of something that is no recipe
        return then
    tables = dict(then.get("mathematics", {}))
    for title, values in now["mathematics"].items():
        defaults = {f.name: f.default for f in dataclasses.fields(GROUPS[title])}
        missing = {n: defaults[n] for n in values if defaults.get(n, dataclasses.MISSING) is not dataclasses.MISSING}
        tables[title] = _plain(missing) | tables.get(title, {})
    return then | {"mathematics": tables}


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    """Values as a JSON file holds them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in table.items()}


def field_names() -> list[str]:
    """Names of all recipe fields; they are unique over the groups, so the command line needs no prefix."""
    return [f.name for group in GROUPS.values() for f in dataclasses.fields(group)]


def shipped_recipes() -> list[str]:
    """Names of the recipes in this package."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, dict[str, Any]]:
    """The tables of a recipe's file, over those of the recipe that it names as its base."""
    if path in seen:
        by = f", by way of {seen[-1]}" if seen[-1] != path else ""
        raise ConfigError(f"recipe {path}: it is its own base{by}; name another")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe {path}: not TOML: {error}") from error
    base = tables.pop(BASE, None)
    if base is not None and not isinstance(base, str):
        raise ConfigError(f"recipe {path}: {BASE} must be the name of a recipe, not {base!r}")
    for table in tables:
        if table not in GROUPS:
            home = next((t for t, group in GROUPS.items() if table in {f.name for f in dataclasses.fields(group)}), "")
            remedy = f"; {table} belongs into the table [{home}]" if home else nearest(table, GROUPS)
            raise ConfigError(f"recipe {path}: unknown table [{table}]{remedy}")
        if not isinstance(tables[table], dict):
            raise ConfigError(f"recipe {path}: {table} must be one table, [{table}]")
    if base is None:
        return tables
    # A file beside this one, or a recipe that ships.
    beside = str(path.parent / base) if base.endswith(".toml") else base
    try:
        below = _read(_recipe_path(beside), (*seen, path))
    except ConfigError as error:
        raise ConfigError(f"{error} (base of {path})") from error
    return {name: _over(below.get(name, {}), tables.get(name, {})) for name in below.keys() | tables.keys()}


def _over(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a table, those of ``upper`` first."""
    replaced = {INSTEAD[name] for name in upper.keys() & INSTEAD.keys()}
    return {name: value for name, value in lower.items() if name not in replaced} | dict(upper)


def _recipe_path(name_or_path: str) -> Path:
    path = Path(name_or_path) if name_or_path.endswith(".toml") else RECIPES / f"{name_or_path}.toml"
    if not path.is_file():
        known = shipped_recipes()
        raise ConfigError(f"no recipe {name_or_path}{nearest(name_or_path, known)}; there are: {', '.join(known)}")
    return path
