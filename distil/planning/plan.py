"""A plan from its options: by a data sheet, or by what was measured on this machine."""

from __future__ import annotations

from collections.abc import Iterator

from distil.config import Recipe
from distil.planning.described import described, placed_on, sources
from distil.planning.machines import machines
from distil.planning.memory import memory
from distil.planning.options import HERE, Asked
from distil.planning.outline import outline
from distil.planning.prediction import predict
from distil.planning.rates import Sheet
from distil.planning.table import side_by_side


def plan(asked: Asked, recipe: Recipe) -> Iterator[str]:
    """The plan's texts, as they are made. Raises ConfigError and DataError."""
    if asked.gpus == HERE:
        from distil.planning.here import plan_here

        yield from plan_here(asked, recipe)
        return
    each = [machines(name) for name in asked.gpus]
    jobs = [outline(recipe, placed_on(of, asked, recipe), asked.tokens) for of in each]
    rates = [Sheet(of.device, job.placement.precision) for of, job in zip(each, jobs, strict=True)]
    if len(each) == 1:
        yield described(jobs[0], each[0], rates[0], asked, sources(each[0]))
        return
    found = [predict(*one) for one in zip(jobs, each, rates, strict=True)]
    needed = [memory(job, of.device, of.count) for job, of in zip(jobs, each, strict=True)]
    yield side_by_side(found, needed, asked)
