"""A plan from its options: by a data sheet, or by what was measured on this machine."""

from __future__ import annotations

from collections.abc import Iterator

from distil.config import Recipe
from distil.placement import Placement, place
from distil.planning.machines import Machines, machines
from distil.planning.memory import memory
from distil.planning.options import HERE, Asked
from distil.planning.outline import Outline, outline
from distil.planning.prediction import predict
from distil.planning.rates import Rates, Sheet
from distil.planning.table import side_by_side, table


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
    yield side_by_side(found, [memory(job, of.device, of.count) for job, of in zip(jobs, each, strict=True)])


def placed_on(of: Machines, asked: Asked, recipe: Recipe) -> Placement:
    """The job's placement there. Raises ConfigError."""
    device = of.device
    return place(asked.deepspeed, recipe, of.count, device.type, device.precisions, asked.precision)


def described(job: Outline, of: Machines, rates: Rates, asked: Asked, from_where: list[str]) -> str:
    """A job's plan in rows, under what its placement has to say."""
    lines = [f"plan of recipe {job.recipe.name}", *(f"  {note}" for note in job.placement.notes)]
    return "\n".join([*lines, table(predict(job, of, rates), memory(job, of.device, of.count), asked, from_where)])


def sources(of: Machines) -> list[str]:
    """Where a data sheet's rates are from."""
    device = of.device
    return [
        f"data sheets of {device.name} and {device.node}; of the matrix peak {device.matrix.share:.0%} "
        f"({device.matrix.source}), of the memory's rate {device.stream.share:.0%} ({device.stream.source})"
    ]
