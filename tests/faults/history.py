"""One run of two ranks that meets one fault after the other, each time started again by the same command."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from harness import Material, Started, command

# Of the whole run of each objective: each life of it makes some, more on a faster machine. Few lives, few steps.
STEPS = {"mlm": 900, "clm": 150}
SAVE_EVERY = 5
SILENCE = 5  # seconds; the recipe's 60 would make the tests as much longer
SPOILT = "tests/faults/spoilt.py"


@dataclass(frozen=True)
class Life:
    """How one start of the run ended: exit code, seconds from the fault to the last process, output, newest steps.

    Where the program itself is faulty, seconds are from its newest checkpoint on, a few steps before the fault.
    """

    code: int
    seconds: float
    output: str
    newest_before: int
    newest_after: int
    left: list[str]


def arguments(material: Material, out: Path, steps: int) -> list[object]:
    """Options of the run; the schedule is longer than what is run of it."""
    return [
        "--recipe", material.recipe, "--output_dir", out, "--precision", "fp32", "--steps", 100_000,
        "--max_steps", steps, "--save_every", SAVE_EVERY, "--eval_every", 0,
        "--silence_seconds", SILENCE, "--hang_seconds", 8,
    ]  # fmt: skip


def newest(out: Path) -> int:
    """Step of the newest checkpoint, 0 where there is none."""
    names = [path.name for path in (out / "checkpoints").glob("step-*")]
    return max((int(name.removeprefix("step-")) for name in names), default=0)


def live(
    options: list[object], out: Path, log: Path, fault: Callable[[Started], None] | None, *,
    spoilt: tuple[object, ...] = (), seconds: float = 60,
) -> Life:  # fmt: skip
    """Start the run of these options in ``out``, let ``fault`` happen once it has saved anew, and wait for its end.

    ``spoilt`` are WHAT, RANK and the number of steps from here on at which the program itself is faulty.
    """
    before = newest(out)
    line = command(2, *options)
    if spoilt:
        what, rank, steps = spoilt
        line = command(2, what, rank, before + int(steps), *options, program=SPOILT)
    with Started(line, log) as run:
        began = time.monotonic()
        if fault is not None:
            run.wait_for(lambda: newest(out) > before and len(run.ranks()) == 2)
            began = time.monotonic()
            fault(run)
            run.gone_within(seconds)
        else:
            while run.process.poll() is None and time.monotonic() - began < 240:
                run.look()
                time.sleep(0.05)
            run.gone_within(seconds)
        seconds = time.monotonic() - began
        if fault is None:
            seconds = time.time() - max(path.stat().st_mtime for path in (out / "checkpoints").glob("step-*"))
        left = sorted(path.name for path in (out / "checkpoints").iterdir())
        return Life(run.process.returncode, seconds, log.read_text(), before, newest(out), left)


def to_rank(rank: int, number: signal.Signals) -> Callable[[Started], None]:
    """Send a signal to a rank."""
    return lambda run: run.ranks()[rank].send_signal(number)


def to_all_ranks(number: signal.Signals) -> Callable[[Started], None]:
    """Send a signal to both ranks."""
    return lambda run: [rank.send_signal(number) for rank in run.ranks()]


def to_launcher(number: signal.Signals) -> Callable[[Started], None]:
    """Send a signal to ``deepspeed``."""
    return lambda run: run.process.send_signal(number)


def to_its_child(number: signal.Signals) -> Callable[[Started], None]:
    """Send a signal to ``launch.py``, which has started the ranks."""
    return lambda run: psutil.Process(run.ranks()[0].ppid()).send_signal(number)


def saved_at(life: Life) -> int:
    """The step that a life says it has saved at its end."""
    return int(re.findall(r"saved at step (\d+)", life.output)[-1])
