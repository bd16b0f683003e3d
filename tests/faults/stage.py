"""Many real runs in one launch: ranks and DeepSpeed are started once, each case spoils a folder and trains on.

Started by the launcher as a program: ``stage.py WORK MATERIAL CASE ...`` runs the named functions of ``cases`` in order
on every rank and writes WORK/outcomes.json.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from distil import errors, options
from distil.engine.heartbeat import Heartbeat
from distil.engine.ranks import start_ranks, stop_ranks
from distil.errors import RunError, UserError
from distil.guard import Guard
from distil.models.distiller import Distiller, Observed
from distil.pretrain import run
from distil.stepping import Stepper
from distil.stopping import StopRequest

SAVED = 10  # step of the newest checkpoint in the run that cases spoil; the one before is at half of it
NEWEST = f"checkpoints/step-{SAVED:08}"
LAST = 15


@dataclass
class Outcome:
    """How a run ended, as its program would have: exit code, the line that says why, all that rank 0 printed."""

    code: int
    message: str
    printed: str
    seconds: float
    facts: dict = field(default_factory=dict)


class Stage:
    """The ranks, a finished run WORK/whole of LAST steps, and WORK/broken, the same stopped after SAVED."""

    def __init__(self, work: Path, material: Path) -> None:
        self.work, self.material = work, material
        stop = StopRequest()
        self.ranks = start_ranks()
        self.guard = Guard(stop, Heartbeat(self.ranks, stop, 60, 600))
        self.guard.heartbeat.start()
        self.step = 0  # that a run is at, counted from 1
        take = Stepper.step

        def counted(steps: Stepper) -> object:
            self.step = steps.at.step + 1
            return take(steps)

        Stepper.step = counted

    def first(self, work: Callable[[], object]) -> None:
        """Rank 0 does something to the files; the others wait."""
        self.ranks.first_does(work)

    def copy(self, name: str) -> Path:
        """A fresh copy of the broken run."""
        self.first(lambda: shutil.copytree(self.work / "broken", self.work / name) and None)
        return self.work / name

    @contextlib.contextmanager
    def hidden_times(self, value: float, steps: range, side: int) -> Iterator[None]:
        """The hidden states of the student (side 0) or the teacher (1) are multiplied in these steps, on every rank."""
        observe = Distiller._observe

        def spoilt(distiller: Distiller, model: object, family: object, inputs: dict, which: int) -> Observed:
            seen = observe(distiller, model, family, inputs, which)
            if which != side or self.step not in steps or not distiller.training:
                return seen
            return seen._replace(hidden_NH=seen.hidden_NH * value)

        Distiller._observe = spoilt
        try:
            yield
        finally:
            Distiller._observe = observe

    @contextlib.contextmanager
    def gradients_times(self, value: float, steps: range) -> Iterator[None]:
        """The loss is as it should be, its gradient is multiplied in these steps."""
        forward = Distiller.forward

        def spoilt(distiller: Distiller, *args: object) -> object:
            output = forward(distiller, *args)
            if self.step in steps and hasattr(output, "total") and output.total.requires_grad:
                output.total.register_hook(lambda gradient: gradient * value)
            return output

        Distiller.forward = spoilt
        try:
            yield
        finally:
            Distiller.forward = forward

    def train(self, out: Path, steps: int = LAST, *more: str) -> Outcome:
        """Train in a folder up to a step."""
        arguments = ["--recipe", str(self.material / "tiny.toml"), "--output_dir", str(out)]
        arguments += [] if "--precision" in more else ["--precision", "fp32"]
        chosen, recipe = options.parse([*arguments, "--max_steps", str(steps), *more], "")
        printed, began = io.StringIO(), time.monotonic()
        code, message = 0, ""
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                run(chosen, recipe, self.ranks, self.guard)
            except UserError as error:
                code, message = error.code, errors.one_line(error)
                assert error.shared, f"one rank alone failed, the others would hang: {message}"
        return Outcome(code, message, printed.getvalue(), time.monotonic() - began)


def main() -> None:
    """Run the cases and leave."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import cases

    stage = Stage(Path(sys.argv[1]), Path(sys.argv[2]))
    outcomes: dict[str, Outcome] = {}
    try:
        for out, steps in (("broken", SAVED), ("whole", LAST)):
            made = stage.train(stage.work / out, steps)
            if made.code:
                raise RunError(made.message)
        for name in sys.argv[3:]:
            outcomes[name] = getattr(cases, name)(stage)
    finally:
        if stage.ranks.first:
            told = {name: asdict(outcome) for name, outcome in outcomes.items()}
            (stage.work / "outcomes.json").write_text(json.dumps(told))
    stage.guard.heartbeat.end()
    stop_ranks()


if __name__ == "__main__":
    sys.argv = [a for a in sys.argv if not a.startswith("--local_rank")]
    sys.path.insert(0, os.path.dirname(__file__))
    errors.leave(errors.run(main))
