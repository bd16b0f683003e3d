"""An ablation: all variants of a recipe with all seeds, one after another in the same ranks, and the table of them.

Every run has a folder of its own and is the very run that ``launch/pretrain.py`` makes with the same numbers, so what
is finished stays finished and what was interrupted goes on. The table is of all runs in the folder that are finished,
whichever commands have asked for them.
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distil.engine.ranks import Ranks
from distil.errors import ConfigError, DataError
from distil.guard import Guard, together
from distil.job import Job
from distil.made import made_now
from distil.members import (
    MADE,
    NUMBERS,
    TABLE,
    Member,
    free_folder,
    keep,
    members_of,
    members_there,
    read_numbers,
    refuse_others,
    refuse_strangers,
)  # fmt: skip
from distil.pretrain import introduce, run, say_loss_path, settled
from distil.provenance import document, unlike
from distil.results import Results
from distil.rundir import RESULTS, finished
from distil.stopping import StopRequest
from distil.summary import COLUMN, describe, differing
from distil.training import RUNS, STOP, say
from distil.variants import AblationOptions, Variant, staying
from distil.variation import lines_of, table


def ablate(options: AblationOptions, variants: Sequence[Variant], stop: StopRequest, command: str) -> None:
    """Run all variants, the whole recipe first, with all seeds, and print and write the table.

    ``command`` is what a person types for it. Raises what ``pretrain`` raises; whatever stops a run ends the ablation,
    and the same command goes on.
    """
    whole = variants[0].recipe
    asked = Path(options.output_dir) if options.output_dir else None
    with together(whole.run, stop, *([asked / STOP] if asked else [])) as (ranks, guard):
        if asked:
            ranks.first_does(lambda: refuse_strangers(asked))  # at once: to fit a teacher may take an hour
        introduce(ranks, whole)
        job = settled(options, whole, ranks, guard, told=False)
        folder = ranks.first_does(lambda: _folder(asked, job))
        guard = guard.stopped_by(folder / STOP)
        seeds = range(whole.optimizer.seed, whole.optimizer.seed + options.seeds)
        members = members_of(folder, variants, seeds)
        done = ranks.first_does(lambda: _done(folder, members, job))
        _tell(options, members, done, job, ranks)
        if options.dry_run:
            return
        if len(done) < len(members):
            say_loss_path(ranks)
        for number, one in enumerate(members, 1):
            if one.folder.name not in done:
                guard.pass_on(ranks)
                title = f"run {number} of {len(members)}: {one.variant.formula}, seed {one.seed}, in {one.folder}"
                say(ranks, f"\n{title}\n")
                _train(options, one, job, ranks, guard, command)
        ranks.first_does(lambda: _write(folder, members, job, command))


def _folder(asked: Path | None, job: Job) -> Path:
    """The folder asked for, or a free one. Raises ConfigError for what would otherwise be found after hours."""
    if not job.heldout:
        raise ConfigError(
            "an ablation is measured on held-out text, and there is none; give --heldout_store PREFIX, or binarize "
            "with --heldout_fraction"
        )
    if asked is None:
        return free_folder(RUNS, job)
    refuse_strangers(asked)
    refuse_others(asked, job)
    return asked


def _done(folder: Path, members: Sequence[Member], job: Job) -> dict[str, Results]:
    """What is finished already, by run. Raises ConfigError where the runs to come could not be compared with it."""
    done = {one.folder.name: Results.read(one.folder) for one in members if finished(one.folder, one.job(job))}
    for name, results in done.items():
        if len(done) < len(members) and results.step != job.stop_step:
            raise ConfigError(
                f"{folder / name} went to step {results.step}, the runs to come would stop at {job.stop_step}: they do "
                f"not compare; give --max_steps {results.step}, or another --output_dir"
            )
    return done


def _tell(
    options: AblationOptions, members: Sequence[Member], done: dict[str, Results], job: Job, ranks: Ranks
) -> None:  # fmt: skip
    """What is there, then the plan: of what is still to be trained, for the rest was made as it was made."""
    folder, left = members[0].folder.parent, len(members) - len(done)
    say(ranks, f"  {len(done)} of {len(members)} runs are done in {folder}")
    if options.without is None and (line := staying(members[0].variant.recipe)):
        say(ranks, f"  {line}")
    if left:
        for note in job.placement.notes:
            say(ranks, f"  {note}")
        say(ranks, describe(job))
    steps = job.stop_step
    total = f"{len(members)} runs x {steps:,} steps = {len(members) * steps:,} steps, about "
    total += f"{len(members) * _tokens(job, steps):,} tokens"
    say(ranks, f"  {'in all':<{COLUMN}}{total}" + (f", to be made: {left}" if 0 < left < len(members) else ""))
    for line in ranks.first_does(lambda: _warnings(folder, members, done, job, ranks)):
        say(ranks, line)
    if options.dry_run:
        states = [(one, "; done" if one.folder.name in done else "") for one in members]
        say(ranks, "\n" + "\n".join(f"  {one.folder}: {one.variant.formula}{state}" for one, state in states))


def _warnings(
    folder: Path, members: Sequence[Member], done: Collection[str], job: Job, ranks: Ranks
) -> list[str]:  # fmt: skip
    """Of runs that would be compared though made otherwise: what is done as it was made, the rest as it would be."""
    now = made_now(job.placement, ranks)
    made = read_numbers(folder).get(MADE, {}) | {m.folder.name: now for m in members if m.folder.name not in done}
    return unlike([(one.variant.name, one.seed) for one in members], made)


def _train(
    options: AblationOptions, one: Member, job: Job, ranks: Ranks, guard: Guard, command: str
) -> None:  # fmt: skip
    how = replace(options, output_dir=str(one.folder))
    run(how, one.recipe, ranks, guard, brief=lambda its: differing(its, job))

    def note() -> None:  # how it was made stays with it: another may be made elsewhere
        numbers = _with_command(read_numbers(one.folder.parent), command)
        numbers.setdefault(MADE, {})[one.folder.name] = made_now(job.placement, ranks)
        keep(one.folder.parent, numbers)

    ranks.first_does(note)
    gc.collect()  # its models hang in cycles, and would hold a device's memory beside the next run's


def _with_command(numbers: dict[str, Any], command: str) -> dict[str, Any]:
    return numbers | {"commands": list(dict.fromkeys([*numbers.get("commands", []), command]))}


def _write(folder: Path, members: Sequence[Member], job: Job, command: str) -> None:
    """Print the table of all that is finished in the folder, and write it with all numbers."""
    found, first = _measured(members, members_there(folder, job.recipe))
    variants = list({one.variant.name: one.variant for one in found}.values())
    rows = {v.name: {one.seed: r.student for one, r in found.items() if one.variant.name == v.name} for v in variants}
    lines = lines_of(variants, {name: dict(sorted(by_seed.items())) for name, by_seed in rows.items()})
    numbers = _with_command(read_numbers(folder), command) | {
        "recipe": {"name": job.recipe.name, **job.recipe.mathematics()},
        "steps": first.step, "tokens_about": _tokens(job, first.step), "heldout_positions": first.predicted,
        "variants": [line.values() for line in lines],
    }  # fmt: skip
    warnings = unlike([(one.variant.name, one.seed) for one in found], numbers.get(MADE, {}))
    keep(folder, numbers, document(lines, numbers, warnings))
    below = "".join(f"\n\n{line}" for line in warnings)
    print(
        f"\n{table(lines)}{below}\n\nwritten to {folder / TABLE}, all numbers to {folder / NUMBERS}", flush=True
    )  # fmt: skip


def _measured(members: Sequence[Member], there: Sequence[Member]) -> tuple[dict[Member, Results], Results]:
    """Results of all members, then of the other runs there that compare with them, and the first of all.

    What was asked for must compare, or ConfigError is raised; what was not is left out otherwise, in a line.
    """
    found = {one: Results.read(one.folder) for one in members}
    first = found[members[0]]
    for one, results in found.items():
        if results.student.accuracy is None:
            raise DataError(f"{one.folder / RESULTS} has no held-out figures: remove it to measure again")
        if apart := _apart(results, first):
            raise ConfigError(
                f"{one.folder} {apart[0]}, {members[0].folder} {apart[1]}: they do not compare; {apart[2]}, or give "
                "another --output_dir"
            )
    others = {one: Results.read(one.folder) for one in there if one not in found and one.measured}
    for one, results in others.items():  # the whole recipe's are the first
        wholes = {other.seed for other in found if not other.variant.left_out}
        if results.student.accuracy is None or (apart := _apart(results, first)):
            why = (
                "it has no held-out figures" if results.student.accuracy is None else f"it {apart[0]}, these {apart[1]}"
            )
        elif one.variant.left_out and one.seed not in wholes:
            why = f"the whole recipe has no run of seed {one.seed}"
        else:
            found[one] = results
            continue
        print(f"not in the table: {one.folder}: {why}", flush=True)
    return found, first


def _apart(one: Results, other: Results) -> tuple[str, str, str] | None:
    """How far two runs went or how much they were measured on, and what to do, where they do not compare."""
    if one.step != other.step:
        return f"went to step {one.step}", f"to {other.step}", "give the same --max_steps to all"
    if one.predicted != other.predicted:
        measured = f"was measured on {one.predicted:,} held-out positions", f"on {other.predicted:,}"
        return *measured, f"remove {RESULTS} of one to measure it again"
    return None


def _tokens(job: Job, steps: int) -> int:
    """Tokens of so many steps, by the store's mean: seeds differ by a few."""
    mixture = job.mixture
    return round(steps * job.micro_batches / mixture.micro_batches * mixture.tokens_an_epoch)
