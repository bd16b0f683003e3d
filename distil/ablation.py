"""An ablation: all variants of a recipe with all seeds, one after another in the same ranks, and the table of them.

Every run has a folder of its own and is the very run that ``launch/pretrain.py`` makes with the same numbers, so what
is finished stays finished and what was interrupted goes on.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from distil.config import Recipe
from distil.engine.ranks import Ranks
from distil.errors import ConfigError, DataError
from distil.folder import write_whole
from distil.guard import together
from distil.job import Job
from distil.monitor import git_revision
from distil.pretrain import RUNS, STOP, run, say, settled
from distil.results import RESULTS, Results, Row
from distil.rundir import RUN, check, finished
from distil.stopping import StopRequest
from distil.variants import AblationOptions, Variant, staying
from distil.variation import Line, lines_of, table

TABLE, NUMBERS = "ablation.md", "ablation.json"
MADE = "made"  # in NUMBERS: run -> when, where and with what it was finished


@dataclass(frozen=True)
class Member:
    """One run of an ablation."""

    variant: Variant
    seed: int
    folder: Path

    @property
    def recipe(self) -> Recipe:
        """What it trains."""
        return self.variant.with_seed(self.seed)


def ablate(options: AblationOptions, variants: Sequence[Variant], stop: StopRequest, command: str) -> None:
    """Run all variants, the whole recipe first, with all seeds, and print and write the table.

    ``command`` is what a person types for it. Raises what ``pretrain`` raises; whatever stops a run ends the ablation,
    and the same command goes on.
    """
    whole = variants[0].recipe
    folder = Path(options.output_dir) if options.output_dir else RUNS / f"ablation-{whole.name}"
    first = whole.optimizer.seed
    # By seeds first: after the first round every variant has a figure.
    members = [
        Member(variant, seed, folder / f"{variant.name}-seed{seed}")
        for seed in range(first, first + options.seeds)
        for variant in variants
    ]
    with together(whole.run, stop, folder / STOP) as (ranks, guard):
        job = settled(options, whole, ranks, guard)
        if options.without is None and (line := staying(whole)):
            say(ranks, f"  {line}")
        ranks.first_does(lambda: _refuse(folder, members, job))
        if options.dry_run:
            say(ranks, "\n" + "\n".join(f"  {one.folder}: {one.variant.formula}" for one in members))
            return
        results = []
        for number, one in enumerate(members, 1):
            done = ranks.first_does(lambda one=one: finished(one.folder, _as_of(job, one)))
            if done is None:
                guard.pass_on(ranks)
                title = f"run {number} of {len(members)}: {one.variant.formula}, seed {one.seed}, in {one.folder}"
                say(ranks, f"\n{title}\n")
                done = run(replace(options, output_dir=str(one.folder)), one.recipe, ranks, guard)
                ranks.first_does(lambda one=one: _note(one, job, ranks))
                gc.collect()  # its models hang in cycles, and would hold a device's memory beside the next run's
            results.append(done)
        ranks.first_does(lambda: _write(folder, members, results, job, command))


def _refuse(folder: Path, members: Sequence[Member], job: Job) -> None:
    """Raise ConfigError for what would otherwise be found after hours."""
    if (folder / RUN).exists():
        raise ConfigError(f"output directory {folder} is that of a single run; give another --output_dir")
    if not job.heldout:
        raise ConfigError(
            "an ablation is measured on held-out text, and there is none; give --heldout_store PREFIX, or binarize "
            "with --heldout_fraction"
        )
    for one in members:
        check(one.folder, _as_of(job, one))
    _read(folder)


def _as_of(job: Job, one: Member) -> Job:
    """The whole recipe's job under a member's recipe: its identity and length, without opening anything anew."""
    return replace(job, recipe=one.recipe)


def _note(one: Member, job: Job, ranks: Ranks) -> None:
    """Keep how a run was made: another may be made elsewhere."""
    numbers = _read(one.folder.parent)
    numbers.setdefault(MADE, {})[one.folder.name] = {
        "date": time.strftime("%F"), "machine": machine(ranks.device), "ranks": ranks.world,
        "precision": job.placement.precision, "ds_config": job.placement.path, "torch": torch.__version__,
        "deepspeed": metadata.version("deepspeed"), "git": git_revision(),
    }  # fmt: skip
    _keep(one.folder.parent / NUMBERS, json.dumps(numbers, indent=2) + "\n")


def _write(folder: Path, members: Sequence[Member], results: Sequence[Results], job: Job, command: str) -> None:
    """Print the table, and write it with all numbers."""
    variants = list(dict.fromkeys(one.variant for one in members))
    found: dict[str, dict[int, Row]] = {variant.name: {} for variant in variants}
    for one, result in zip(members, results, strict=True):
        if result.student.accuracy is None:
            raise DataError(f"{one.folder / RESULTS} has no held-out figures: remove it to measure again")
        if result.step != results[0].step:
            raise ConfigError(
                f"{one.folder} went to step {result.step}, {members[0].folder} to {results[0].step}: they do not "
                "compare; give the same --max_steps to all, or another --output_dir"
            )
        found[one.variant.name][one.seed] = result.student
    lines = lines_of(variants, found)
    steps, tokens = results[0].step, _tokens(job, results[0].step)
    numbers = _read(folder) | {
        "command": command, "recipe": {"name": job.recipe.name, **job.recipe.mathematics()},
        "steps": steps, "tokens_about": tokens, "heldout_positions": results[0].predicted,
        "variants": [line.values() for line in lines],
    }  # fmt: skip
    _keep(folder / NUMBERS, json.dumps(numbers, indent=2) + "\n")
    _keep(folder / TABLE, _document(lines, members, numbers))
    print(f"\n{table(lines)}\n\nwritten to {folder / TABLE}, all numbers to {folder / NUMBERS}", flush=True)


def _document(lines: Sequence[Line], members: Sequence[Member], numbers: dict[str, Any]) -> str:
    """The table with all that is needed to make it again."""
    made = numbers.get(MADE, {})
    alike: dict[str, list[str]] = {}  # runs that were made alike, but for the day, share a line
    unknown = "how and when they were made is not recorded"
    for how in (made.get(one.folder.name) for one in members):
        alike.setdefault(_how(how) if how else unknown, []).append(how["date"] if how else "")
    runs = []
    for text, dates in alike.items():
        days = " to ".join(dict.fromkeys((min(dates), max(dates))))
        runs.append(f"- {len(dates)} of {len(members)} runs{f', {days}' if days else ''}: {text}")
    length = f"{numbers['steps']:,} steps a run, about {numbers['tokens_about']:,} tokens; "
    length += f"measured on {numbers['heldout_positions']:,} held-out positions."
    title = f"# Ablation of the recipe {numbers['recipe']['name']}"
    return "\n".join(
        [title, "", table(lines), "", length, "", f"    {numbers['command']}", "", *runs, ""]
    )  # fmt: skip


def _how(made: dict[str, Any]) -> str:
    return (
        f"{made['machine']}; {made['ranks']} rank(s), {made['precision']}, {made['ds_config']}; torch {made['torch']}, "
        f"DeepSpeed {made['deepspeed']}, git {made['git']}"
    )


def _tokens(job: Job, steps: int) -> int:
    """Tokens of so many steps, by the store's mean: seeds differ by a few."""
    mixture = job.mixture
    return round(steps * job.micro_batches / mixture.micro_batches * mixture.tokens_an_epoch)


def machine(device: torch.device) -> str:
    """The device in words: a GPU's name, or the processor's with the cores that this process may use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    models = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    name = models[0].partition(": ")[2] if models else platform.processor() or platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{name}, {cores} core{'s' if cores > 1 else ''}"


def _read(folder: Path) -> dict[str, Any]:
    """The numbers kept so far. Raises DataError where they cannot be read."""
    path = folder / NUMBERS
    if not path.exists():
        return {}
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(numbers, dict) and isinstance(numbers.get(MADE, {}), dict):
            return numbers
        why = "it is no table of ours"
    except (OSError, ValueError) as error:
        why = str(error)
    raise DataError(f"{path} cannot be read ({why}); remove it, and the same command makes it anew")


def _keep(path: Path, text: str) -> None:
    try:
        write_whole(path, text)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
