"""Soak: real runs of two ranks, killed at random times, started again by the same command, compared to the last bit.

    python tests/faults/soak.py --seeds 50                                                 what `make soak` runs
    python tests/faults/soak.py --seeds 50 --objective clm                                 of a causal model
    python tests/faults/soak.py --seeds 50 --out benchmarks/results/soak.md                kept

A seed draws how often a run is killed, when, and which of its processes. What a kill has hit is read from the disk:
a draft of this life is half a save, a new checkpoint tells of training.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1] / room) for room in ("end_to_end", "models")]

import psutil
from families import MATERIALS
from harness import CLOCKED, Material, Started, command, must_pretrain, scalars, tags
from history import newest
from safetensors.torch import load_file

STEPS = 100
SAVE_EVERY = 2
VICTIMS = ("all", "rank 0", "rank 1", "deepspeed", "launch.py")
AFTER_START = 14.0  # seconds, in which a kill that may hit the start-up comes
IN_TRAINING = 8.0  # seconds from a life's first save on, in which other kills come; fewer where fewer steps are left
HIT = ("start-up", "training", "saving", "nothing: it had ended")


@dataclass(frozen=True)
class Kill:
    """Whom a kill was meant for, and what it hit, as found on the disk afterwards."""

    victim: str
    hit: str


@dataclass(frozen=True)
class Verdict:
    """What became of a seed's run: its kills, and how it differs from the run that nothing happened to."""

    seed: int
    kills: list[Kill]
    differences: list[str]


def arguments(material: Material, out: Path) -> list[object]:
    """Options of the run; ``--steps`` is more than is run of it, so that the schedule bends at no end."""
    return [
        "--recipe", material.recipe, "--output_dir", out, "--precision", "fp32", "--steps", 3000, "--max_steps", STEPS,
        "--save_every", SAVE_EVERY, "--eval_every", 20, "--silence_seconds", 15, "--hang_seconds", 60,
    ]  # fmt: skip


def reference(material: Material, out: Path) -> Path:
    """The run that nothing happens to."""
    must_pretrain(2, *arguments(material, out))
    return out


def soak(seed: int, material: Material, out: Path, whole: Path) -> Verdict:
    """Kill a run as the seed has it, finish it, and compare it with the whole one."""
    rng, kills = random.Random(seed), []
    try:
        for life in range(rng.randint(1, 3)):
            kills.append(_life(rng, material, out, out.with_name(f"{out.name}.{life}")))
        must_pretrain(2, *arguments(material, out))
    except AssertionError as error:  # it does not end when it should, or does not go on
        return Verdict(seed, kills, [" / ".join(str(error).strip().splitlines()[-3:])])
    return Verdict(seed, kills, differences(out, whole))


def differences(run: Path, whole: Path) -> list[str]:
    """Names of the scalars and exported tensors in which two runs are not the same to the last bit."""
    found = [tag for tag in tags(run) ^ tags(whole)]
    found += [tag for tag in tags(whole) & tags(run) - CLOCKED if scalars(run, tag) != scalars(whole, tag)]
    ours, theirs = (load_file(folder / "student" / "model.safetensors") for folder in (run, whole))
    found += [name for name in ours.keys() | theirs.keys() if not _equal(ours.get(name), theirs.get(name))]
    return sorted(found if newest(run) == newest(whole) == STEPS else [*found, "the last step"])


def _equal(one: object, other: object) -> bool:
    return one is not None and other is not None and one.equal(other)


def _life(rng: random.Random, material: Material, out: Path, log: Path) -> Kill:
    """A start of the run and its violent end."""
    victim, anytime, share = rng.choice(VICTIMS), rng.random() < 0.3, rng.random()
    before, since = newest(out), time.time()
    with Started(command(2, *arguments(material, out)), log) as run:
        if not anytime:
            _until(run, lambda: newest(out) > before, 120)
        _until(run, lambda: False, share * (AFTER_START if anytime else IN_TRAINING * (1 - before / STEPS)))
        hit = HIT[3]
        if run.process.poll() is None:
            victim = _kill(run, victim)
            hit = _hit(out, before, since, log.read_text())
        run.gone_within(90)
    return Kill(victim, hit)


def _until(run: Started, when: Callable[[], bool], seconds: float) -> None:
    """Until ``when`` holds or the run has ended, so many seconds at most; its processes are noted on the way."""
    began = time.monotonic()
    while run.process.poll() is None and time.monotonic() - began < seconds and not when():
        run.look()
        time.sleep(0.02)


def _kill(run: Started, victim: str) -> str:
    """SIGKILL for the victim, or for all where it is not there yet; returns who it was."""
    ranks = run.ranks()
    one = {"deepspeed": lambda: [psutil.Process(run.process.pid)]}
    if len(ranks) == 2:
        one["launch.py"] = lambda: [psutil.Process(ranks[0].ppid())]
        one |= {f"rank {number}": lambda number=number: [ranks[number]] for number in range(2)}
    victims = one[victim]() if victim in one else run.look()
    for process in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return victim if victim in one else "all"


def _hit(out: Path, before: int, since: float, printed: str) -> str:
    """What a kill has hit: half a save of this life is on disk, or a new checkpoint is, or nothing new."""
    for path in (*(out / "checkpoints").glob(".*.draft"), *(out / "checkpoints").glob(".*.old")):
        with contextlib.suppress(FileNotFoundError):  # where others are left, they go on for a moment
            if path.stat().st_mtime > since:
                return "saving"
    return "training" if newest(out) > before or re.search(r"step \d+/", printed) else "start-up"


def report(verdicts: list[Verdict], minutes: float) -> list[str]:
    """The summary as Markdown."""
    hits = Counter(kill.hit for verdict in verdicts for kill in verdict.kills)
    victims = Counter(kill.victim for verdict in verdicts for kill in verdict.kills)
    equal = sum(not verdict.differences for verdict in verdicts)
    rows = {
        "seeds": len(verdicts),
        "kills": sum(hits.values()),
        **{f"kills that hit {what}": hits[what] for what in HIT},
    }
    rows |= {f"kills of {who}": victims[who] for who in VICTIMS}
    rows |= {"runs the same to the last bit": f"{equal} of {len(verdicts)}", "minutes": f"{minutes:.0f}"}
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return lines + [f"| seed {v.seed} differs | {', '.join(v.differences)} |" for v in verdicts if v.differences]


def main() -> None:
    """Run the seeds, tell each, and summarise; the exit code says whether all came out the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=1, help="the first seed; the others follow")
    parser.add_argument("--at_once", type=int, default=1, help="seeds that run beside each other")
    parser.add_argument("--objective", choices=MATERIALS, default="mlm", help="of the model that is trained")
    parser.add_argument("--out", type=Path, help="write the summary to this file as well")
    options = parser.parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # restarts are what this is about
    began, verdicts = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.at_once) as pool:
        material = MATERIALS[options.objective](Path(folder))
        whole = reference(material, Path(folder) / "whole")
        seeds = range(options.first, options.first + options.seeds)
        for verdict in pool.map(lambda seed: soak(seed, material, Path(folder) / f"seed-{seed}", whole), seeds):
            kills = "; ".join(f"{kill.victim} in {kill.hit}" for kill in verdict.kills)
            print(f"seed {verdict.seed}: {kills}: {verdict.differences or 'the same to the last bit'}", flush=True)
            verdicts.append(verdict)
            lines = report(verdicts, (time.monotonic() - began) / 60)
            if options.out:  # what is done so far; a soak may be cut short
                options.out.write_text("\n".join([*_heading(), *lines]) + "\n")
    print("\n".join(lines))
    sys.exit(any(verdict.differences for verdict in verdicts))


def _heading() -> list[str]:
    """What the figures are of."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "deepspeed", "transformers"))
    return [
        "# Runs killed at random times",
        "",
        f"Two ranks on a {os.cpu_count()}-core CPU, ZeRO-1 in fp32, {STEPS} steps, saved every {SAVE_EVERY}: "
        "SIGKILL for every process of it, for one rank, or for one of DeepSpeed's two launcher processes, one to three "
        "times a run; then the same command until it is done. Every scalar and every exported tensor is held against "
        "those of a run that nothing happened to.",
        "",
        f"Made by `python {' '.join(sys.argv)}` on {date.today()}; {versions}. What a kill hit is as found on disk.",
        "",
    ]


if __name__ == "__main__":
    main()
