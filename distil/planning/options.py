"""The command line of a plan; light, so that a mistake is told at once."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

from distil import options
from distil.config import Recipe
from distil.errors import ConfigError
from distil.planning.machines import THIS, machines

POSITIVE = ("tokens", "price_kwh", "price_gpu_hour", "measure")
REHEARSAL = 20.0
HERE = (THIS,)


@dataclass(frozen=True)
class Asked:
    """What is planned beside a recipe; prices and ``tokens`` are None where none was given.

    ``measure`` are the seconds that a rehearsal takes at least, None without one.
    """

    recipe: str
    deepspeed: str
    gpus: tuple[str, ...]
    precision: str
    tokens: float | None
    price_kwh: float | None
    price_gpu_hour: float | None
    measure: float | None


def parse(arguments: Sequence[str], description: str) -> tuple[Asked, Recipe]:
    """The options and the recipe with its overrides. Raises ConfigError."""
    asked, recipe = options.parse(arguments, description, Asked, _add)
    for name in POSITIVE:
        value = getattr(asked, name)
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"--{name} is {value:g}; it must be above 0, and a number that has an end")
    if asked.tokens is not None and asked.tokens < 1:
        raise ConfigError(f"--tokens is {asked.tokens:g}; it must be 1 or more")
    for name in asked.gpus if asked.gpus != HERE else ():
        machines(name)
    if asked.measure and asked.gpus != HERE:
        raise ConfigError(f"--measure is of the machine at hand, not of {' '.join(asked.gpus)}; give --gpus this")
    return asked, recipe


class _Tuple(argparse.Action):
    def __call__(self, parser: object, namespace: argparse.Namespace, values: list[str], option: object = None) -> None:
        setattr(namespace, self.dest, tuple(values))


def _add(parser: argparse.ArgumentParser) -> None:
    plan = parser.add_argument_group("plan")
    recipes = ", ".join(options.shipped_recipes())
    plan.add_argument(
        "--recipe", metavar="NAME", default=options.DEFAULT_RECIPE, help=f"{recipes}, or a TOML file"
    )  # fmt: skip
    plan.add_argument("--deepspeed", metavar="PATH", default=options.Placing.deepspeed, help="ds_config of the job")
    plan.add_argument(
        "--gpus", metavar="NxNAME", nargs="+", action=_Tuple, default=HERE,
        help="8xV100, 1xH200 ..., or this, the machine at hand (default); several are compared in a table",
    )  # fmt: skip
    plan.add_argument(
        "--precision", choices=options.PRECISIONS, default="auto", help="auto: the ds_config's where the device has it"
    )
    plan.add_argument("--tokens", metavar="N", type=float, help="of an epoch: 3.5e9, say; a store is not looked at")
    plan.add_argument("--price_kwh", metavar="PRICE", type=float, help="of a kilowatt-hour: what electricity costs")
    plan.add_argument("--price_gpu_hour", metavar="PRICE", type=float, help="of a GPU for an hour: what renting costs")
    plan.add_argument(
        "--measure", metavar="SECONDS", type=float, nargs="?", const=REHEARSAL,
        help=f"measure this machine's rates, which are kept, and real steps for so long (of itself: {REHEARSAL:g})",
    )  # fmt: skip
