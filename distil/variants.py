"""What an ablation trains: a recipe whole, and without each of the parts named on the command line.

Sanh et al. 2019 (DistilBERT, arXiv 1910.01108), Table 4, leave out one term of the loss, or the initial weights from
the teacher. Of a term that is left out only the weight goes: inputs stay masked as the recipe says, so that nothing but
the loss differs.
"""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from distil.config import Recipe
from distil.errors import ConfigError
from distil.fields import nearest
from distil.folder import standing
from distil.options import Options, add_run_options
from distil.options import parse as parse_options
from distil.tables import RANDOM, Loss

WHOLE = "full"
INIT = "init"
LEAVING = "without-"
TOGETHER = "+"
NOTHING = "\u2205"  # the empty set, which stands for a term in the paper's formulas
PAPER_ORDER = ("ce", "cos", "mlm")
# What is left out of the triple loss: points of GLUE's macro-score against all of it.
PAPER_TABLE = {(): 0.0, ("ce",): -2.96, ("cos",): -1.46, ("mlm",): -0.31, (INIT,): -3.69}
ALPHA = "alpha_"


@dataclass(frozen=True)
class AblationOptions(Options):
    """What the command line of an ablation adds; ``without`` is None where all parts are to be left out in turn."""

    without: str | None = None
    seeds: int = 3


@dataclass(frozen=True)
class Variant:
    """A recipe without some of its parts; ``paper`` is the published variation in points of GLUE, where there is one.

    ``formula`` says what is trained, as the paper writes it.
    """

    name: str
    left_out: tuple[str, ...]
    formula: str
    paper: float | None
    recipe: Recipe

    def with_seed(self, seed: int) -> Recipe:
        """Its recipe with another order, other masks, dropout and random weights."""
        return replace(self.recipe, optimizer=replace(self.recipe.optimizer, seed=seed))


def parse(arguments: Sequence[str], description: str) -> tuple[AblationOptions, list[Variant]]:
    """The options and the variants, the whole recipe first. Raises ConfigError; ``--help`` prints and exits."""
    options, recipe = parse_options(arguments, description, AblationOptions, _add_options)
    where = standing(Path(options.output_dir or "."))
    if not where.is_dir():
        raise ConfigError(
            f"output directory {options.output_dir} cannot be: {where} is a file; give another --output_dir"
        )
    if options.seeds < 1:
        raise ConfigError(f"seeds is {options.seeds}; it must be above 0")
    return options, variants(recipe, options.without)


def variants(recipe: Recipe, without: str | None = None) -> list[Variant]:
    """The recipe and its ablations: ``without`` names parts, comma between rows, plus between parts of one row.

    Raises ConfigError for a part that the recipe does not have, a row that is there twice or leaves no term.
    """
    if without is None:
        rows = [(part,) for part in parts_of(recipe) if not _obstacle(recipe, (part,))]
    else:
        rows = [_row(recipe, text.strip(), without) for text in without.split(",")]
    for row in rows:
        if rows.count(row) > 1:
            raise ConfigError(f"--without {without}: {TOGETHER.join(row)} is there twice; name it once")
    return [_variant(recipe, row) for row in [(), *rows]]


def named(recipe: Recipe, name: str) -> Variant | None:
    """The variant of this name; None where the recipe has none."""
    try:
        found = variants(recipe, name.removeprefix(LEAVING))[-1] if name != WHOLE else _variant(recipe, ())
    except ConfigError:
        return None
    return found if found.name == name else None


def staying(recipe: Recipe) -> str:
    """Which parts cannot be left out by themselves, and why, in a line; empty where all can."""
    found = {part: _obstacle(recipe, (part,)) for part in parts_of(recipe)}
    return "; ".join(f"{part} is not left out: {why}" for part, why in found.items() if why)


def terms_of(recipe: Recipe) -> list[str]:
    """Terms of the loss that the recipe gives a weight, first those of the paper as it writes them."""
    names = [f.name.removeprefix(ALPHA) for f in dataclasses.fields(Loss) if f.name.startswith(ALPHA)]
    names = [*PAPER_ORDER, *(name for name in names if name not in PAPER_ORDER)]
    return [name for name in names if getattr(recipe.loss, ALPHA + name) > 0]


def parts_of(recipe: Recipe) -> list[str]:
    """What the recipe has that could be left out."""
    return [*terms_of(recipe), *([INIT] if recipe.model.initial_weights != RANDOM else [])]


def _obstacle(recipe: Recipe, left_out: tuple[str, ...]) -> str:
    """Why these parts cannot be left out together; empty where they can."""
    if not set(terms_of(recipe)) - set(left_out):
        return "it leaves no term of the loss"
    try:
        _loss_without(recipe, left_out)
    except ConfigError as error:
        return str(error)
    return ""


def _loss_without(recipe: Recipe, left_out: tuple[str, ...]) -> Loss:
    return replace(recipe.loss, **{ALPHA + part: 0.0 for part in left_out if part != INIT})


def _row(recipe: Recipe, text: str, typed: str) -> tuple[str, ...]:
    """The parts left out together, in the order of the formula. Raises ConfigError."""
    parts, given = parts_of(recipe), [part.strip() for part in text.split(TOGETHER)]
    there = f"recipe {recipe.name} has {', '.join(parts)}"
    if "" in given:
        raise ConfigError(
            f"--without {shlex.quote(typed)}: a part is empty; name one there, or remove the sign; {there}"
        )
    for part in given:
        if part == INIT and part not in parts:
            raise ConfigError(f"--without {INIT}: recipe {recipe.name} starts from random weights already")
        if part not in parts and hasattr(recipe.loss, ALPHA + part):
            raise ConfigError(f"--without {part}: its weight {ALPHA}{part} is 0 already; {there}")
        if part not in parts:
            raise ConfigError(f"--without {part}: no such part{nearest(part, parts)}; {there}")
        if given.count(part) > 1:
            raise ConfigError(f"--without {text}: {part} is there twice; name it once")
    left_out = tuple(part for part in parts if part in given)
    if why := _obstacle(recipe, left_out):
        raise ConfigError(f"--without {text}: {why}; {there}")
    return left_out


def _variant(recipe: Recipe, left_out: tuple[str, ...]) -> Variant:
    terms = terms_of(recipe)
    loss = _loss_without(recipe, left_out)
    model = replace(recipe.model, initial_weights=RANDOM) if INIT in left_out else recipe.model
    formula = " - ".join(NOTHING if term in left_out else f"L_{term}" for term in terms)
    formula += " + random initial weights" if INIT in left_out else ""
    paper = PAPER_TABLE.get(left_out) if tuple(terms) == PAPER_ORDER else None
    name = f"{LEAVING}{TOGETHER.join(left_out)}" if left_out else WHOLE
    return Variant(name, left_out, formula, paper, replace(recipe, loss=loss, model=model))


def _add_options(parser: argparse.ArgumentParser) -> None:
    run = add_run_options(
        parser,
        "folder of the table and of all runs; default: runs/ablation-RECIPE, or with -2 ... where that is another's",
    )
    run.add_argument(
        "--without", metavar="PART,...",
        help="what is left out in turn: terms of the loss by name (ce, mlm, cos ...), and init, the teacher's weights "
        "at the start; several at once as ce+cos (default: each term that the recipe has and can do "
        "without, then init)",
    )  # fmt: skip
    run.add_argument("--seeds", metavar="N", type=int, default=3, help="runs of each: the recipe's seed, and the next")
