"""A job on machines in words: where it is placed, what it takes, and where the rates are from."""

from __future__ import annotations

from distil.config import Recipe
from distil.errors import ConfigError
from distil.placement import Placement, place
from distil.planning.machines import GIGA, HOP_SECONDS, HOST_RATE, LINK_SHARE, Machines
from distil.planning.memory import memory
from distil.planning.options import Asked
from distil.planning.outline import Outline
from distil.planning.prediction import predict
from distil.planning.rates import Rates
from distil.planning.table import table


def placed_on(of: Machines, asked: Asked, recipe: Recipe) -> Placement:
    """The job's placement there. Raises ConfigError, also for a precision that the device has no rate in."""
    device = of.device
    if asked.precision not in ("auto", *device.precisions):
        raise ConfigError(
            f"--precision {asked.precision}: {device.name} does not compute in it at speed; give one of "
            f"{', '.join(device.precisions)}, or leave it out"
        )
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
        f"({device.matrix.source}), of the memory's rate {device.stream.share:.0%} ({device.stream.source})",
        f"{assumed_links()}, {device.launch_seconds * 1e6:.0f} us of the host to launch an operation, "
        f"{HOST_RATE / GIGA:.0f} GB/s between a GPU and its host",
    ]


def assumed_links() -> str:
    """What is taken of links, of which nothing was measured."""
    return f"assumed: of a link's rate {LINK_SHARE:.0%}, {HOP_SECONDS * 1e6:.0f} us a hop"
