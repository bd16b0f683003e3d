"""The command line of pretraining: how one run is placed, and every recipe field by its name."""

from __future__ import annotations

import argparse
import dataclasses
import textwrap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from distil.config import GROUPS, Recipe, shipped_recipes
from distil.errors import ConfigError
from distil.fields import nearest

DEFAULT_RECIPE = "quickstart"
PRECISIONS = ("auto", "fp16", "bf16", "fp32")


@dataclass(frozen=True)
class Placing:
    """How one run is placed and bounded, whatever it trains; ``output_dir`` is None where none was given."""

    deepspeed: str = "ds_config/zero1.json"
    output_dir: str | None = None
    max_steps: int | None = None
    precision: str = "auto"
    dry_run: bool = False
    max_hours: float | None = None
    compile: bool = False


@dataclass(frozen=True)
class Options(Placing):
    """What the command line adds to a recipe."""

    recipe: str = DEFAULT_RECIPE


Kind = TypeVar("Kind")
FOLDER = "folder of the run; default: runs/RECIPE, or the next free number"


class Parser(argparse.ArgumentParser):
    """A parser whose errors are ConfigErrors: one line instead of the usage."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists the options")


def add_run_options(parser: argparse.ArgumentParser, folder: str = FOLDER) -> argparse._ArgumentGroup:
    """An option for each field of Options; ``folder`` says what output_dir is. Returns their section."""
    run = parser.add_argument_group("run")
    recipes = ", ".join(shipped_recipes())
    run.add_argument("--recipe", metavar="NAME", default=DEFAULT_RECIPE, help=f"{recipes}, or a TOML file")
    add_placing_options(run, folder)
    return run


def add_placing_options(run: argparse._ArgumentGroup, folder: str) -> None:
    """How one run is placed and bounded, whatever it trains; ``folder`` says what output_dir is."""
    run.add_argument(
        "--deepspeed", metavar="PATH", default=Placing.deepspeed, help="ds_config: where and how the job runs"
    )
    run.add_argument("--output_dir", metavar="DIR", help=folder)
    run.add_argument(
        "--max_steps", metavar="N", type=int, help="stop after step N of the schedule, which stays as it is"
    )
    run.add_argument(
        "--max_hours",
        metavar="H",
        type=float,
        help="save and stop, with exit code 75, after so many hours of this process",
    )
    run.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="auto: the ds_config's where the device has it"
    )
    run.add_argument(
        "--compile",
        action="store_true",
        help="compile the models' layers by torch.compile, which a GPU needs Triton for; a minute or two at the start",
    )
    run.add_argument("--dry_run", action="store_true", help="print the plan and exit")
    # The launcher passes its own number; ranks read it from the environment.
    run.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)


def parse(
    arguments: Sequence[str], description: str, kind: type[Kind] = Options,
    add: Callable[[argparse.ArgumentParser], object] = add_run_options,
) -> tuple[Kind, Recipe]:  # fmt: skip
    """The options and the recipe with its overrides. Raises ConfigError; ``--help`` prints and exits.

    A program with more options gives its own ``kind`` of them, and what adds them to a parser.
    """
    first = Parser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe", default=DEFAULT_RECIPE)
    name = first.parse_known_args(arguments)[0].recipe
    recipe = Recipe.load(name)
    parser = Parser(description=description, allow_abbrev=False, formatter_class=Formatter)
    add(parser)
    for title, group in GROUPS.items():
        add_group(parser, f"{title} (recipe {recipe.name})", group, getattr(recipe, title))
    given = parsed(parser, arguments)
    options = kind(**{f.name: given.pop(f.name) for f in dataclasses.fields(kind)})
    given.pop("local_rank", None)
    return options, Recipe.load(name, given)


def parsed(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """What is given, by name, of a parser or of the command of it that is given, too.

    Raises ConfigError for an unknown option, with the nearest match, and for bounds that leave nothing to do.
    """
    values, unknown = parser.parse_known_args(arguments)
    given = vars(values)
    if unknown:
        raise ConfigError(
            f"unknown option {unknown[0]}{nearest(unknown[0].split('=')[0], _options_of(parser, given))}; --help lists "
            "the options"
        )
    for name in ("max_steps", "max_hours"):
        if given.get(name) is not None and not given[name] > 0:
            raise ConfigError(f"{name} is {given[name]}; it must be above 0")
    return given


def _options_of(parser: argparse.ArgumentParser, given: Mapping[str, Any]) -> list[str]:
    """Options of a parser and, where it has commands, of the one that is given."""
    known = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            known += _options_of(action.choices[given[action.dest]], given)
        elif action.option_strings and action.help != argparse.SUPPRESS:
            known.append(action.option_strings[-1])
    return known


class Formatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Help with defaults, wide enough for our longest option, under a description as it is written."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)  # names stay whole, to be copied

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=36, width=120)


def add_group(
    parser: argparse.ArgumentParser, title: str, group: type, values: Any, leave_out: Collection[str] = ()
) -> None:  # fmt: skip
    """One option a field but those to ``leave_out``; what is not given stays out, and the recipe keeps its own."""
    section = parser.add_argument_group(title)
    for field in dataclasses.fields(group):
        if field.name in leave_out:
            continue
        now = getattr(values, field.name)
        kind = str(field.type)
        metavar = field.metadata["metavar"]
        how: dict[str, Any] = {"metavar": metavar or field.name.rsplit("_", 1)[-1].upper()}
        if kind == "bool":
            how |= {"type": boolean, "metavar": "true|false"}
        elif kind in ("tuple[int, ...]", "tuple[str, ...]"):
            of = int if kind == "tuple[int, ...]" else str
            how |= {"type": of, "nargs": "+", "metavar": metavar or "N"}
            now = " ".join(map(str, now))
        else:
            how |= {"type": {"int": int, "float": float, "str": str}[kind]}
        default = f" (default: {now})" if now != "" else ""
        text = f"{field.metadata['help']}{default}".replace("%", "%%")
        section.add_argument(f"--{field.name}", default=argparse.SUPPRESS, help=text, **how)


def boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() == "true"
