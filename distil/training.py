"""A run's middle: engine, checkpoints, curves and the loop, from a module to its trained parameters."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import transformers
from torch import Tensor, nn

from distil.checkpoint.manifest import Position
from distil.checkpoint.saving import Checkpoints
from distil.engine.ranks import Ranks
from distil.engine.wrapped import Engine
from distil.guard import Guard
from distil.health import Health
from distil.models.student import decay_groups
from distil.monitor import Monitor
from distil.placement import Placement
from distil.rundir import Job, check, finished, free_folder, held
from distil.trainer import Trainer
from distil.workload import Workload

RUNS = Path("runs")
STOP = "stop"  # a file of this name in a run's folder stops it


class Came(Protocol):
    """What a run came to."""

    @property
    def step(self) -> int:
        """How far it went."""


R = TypeVar("R", bound=Came)


class Trained(NamedTuple):
    """Where training ended, and where this process began it, and the seconds that took, without evaluations.

    ``parameters`` are the fp32 parameters of what is kept, by name, on the CPU, and on rank 0 alone.
    """

    position: Position
    first_step: int
    seconds: float
    parameters: dict[str, Tensor]


def train(
    work: Workload, job: Job, module: nn.Module, model: transformers.PreTrainedModel, placement: Placement,
    folder: Path, ranks: Ranks, guard: Guard, texts: dict[str, Any],
) -> Trained:  # fmt: skip
    """Train ``module``, of which ``model`` is the part to be kept, on from the newest checkpoint in ``folder``.

    ``texts`` are put beside the curves. Raises Stopped and RunError as ``Trainer.train`` does.
    """
    engine = Engine(module, decay_groups(module, work.optimizer.weight_decay), placement, ranks)
    checkpoints = Checkpoints(
        folder / "checkpoints", work.run.keep_checkpoints, ranks, placement, job.identity()
    )  # fmt: skip
    health = Health(work.run, _least_scale(placement))
    at = Position(0, 0, 0)
    if (there := checkpoints.restore(engine.state, lambda line: say(ranks, line))) is not None:
        at = there.position
        health.resume(there.health)
    say(ranks, "")
    first_step, began = at.step, time.monotonic()
    monitor = Monitor(folder / "tensorboard", job.name, at.step, at.tokens, job.stop_step, ranks.first)
    monitor.texts(texts)
    guard.watch(folder / STOP)
    try:
        trainer = Trainer(
            work, engine, ranks, checkpoints, monitor, at, health=health, stop=guard.stop, heartbeat=guard.heartbeat
        )
        at = trainer.train()
    finally:
        monitor.close()
    seconds = time.monotonic() - began - trainer.evaluating
    parameters = {name: value for name, value in engine.fp32_parameters(model) if ranks.first}
    engine.close()
    return Trained(at, first_step, seconds, parameters)


def in_folder(
    asked: str | None, job: Job, ranks: Ranks, guard: Guard, read: Callable[[Path], R], work: Callable[[Path], R]
) -> tuple[Path, R]:
    """The folder of a job, and what the run in it came to: as ``read`` where one is finished there, else by ``work``.

    Without one ``asked`` for it is the first that is free. It is held while ``work`` goes on. Raises ConfigError for a
    folder that is another run's or in use.
    """
    folder = Path(asked) if asked else ranks.first_does(lambda: free_folder(RUNS, job))
    ranks.first_does(lambda: check(folder, job))
    if ranks.first_does(lambda: finished(folder, job)):
        done = ranks.first_does(lambda: read(folder))
        say(ranks, f"already done in {folder}, at step {done.step:,}; --max_steps or another --output_dir trains on")
        return folder, done
    guard.pass_on(ranks)
    with ExitStack() as stack:
        ranks.first_does(lambda: stack.enter_context(held(folder)))
        return folder, work(folder)


def say(ranks: Ranks, line: str) -> None:
    """Print a line once."""
    if ranks.first:
        print(line, flush=True)


def _least_scale(placement: Placement) -> float | None:
    """Least value of a dynamic loss scale; None without one."""
    block = placement.config.get("fp16", {})
    dynamic = placement.precision == "fp16" and block.get("loss_scale", 0) == 0
    return float(block.get("min_loss_scale", 1)) if dynamic else None
