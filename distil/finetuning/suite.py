"""A suite of tasks: every model, fine-tuned for every task with every seed, in the same ranks, and the tables of them.

Every run has a folder of its own and is the very run that ``launch/finetune.py`` makes with the same numbers, so what
is finished stays finished and what was interrupted goes on. Several processes may share the runs; whoever finds all of
them finished makes the tables, which are of all finished runs in the folder, whichever commands have asked for them.
"""

from __future__ import annotations

import gc
import shutil
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from distil.data.tokenizer import fingerprint, load_tokenizer
from distil.engine.device import precisions_of
from distil.engine.ranks import Ranks
from distil.errors import ConfigError
from distil.finetuning import cross, run, suite_report
from distil.finetuning.results import TaskResults
from distil.finetuning.suite_folder import (
    Identities,
    Member,
    members_of,
    members_there,
    refuse_strangers,
)  # fmt: skip
from distil.finetuning.suite_options import DIRECT, SECOND, STUDENT, Suite
from distil.guard import Guard, together
from distil.made import made_now
from distil.models.families import family_of
from distil.models.loading import load_config
from distil.placement import Placement, place
from distil.rundir import RESULTS, held
from distil.stopping import StopRequest
from distil.training import STOP, say

TOTAL = "total_steps"  # in the notes of a run: how long its schedule is
CHECKPOINTS = "checkpoints"  # folder of them within a run


def fit(suite: Suite, stop: StopRequest, command: str, out: Path | None) -> None:
    """Make the runs of a suite, or its share of them, and print and write the tables once all are there.

    ``command`` is what a person types for it; ``out`` the folder of a run whose report is to show them. Raises what a
    fine-tuning raises; whatever stops a run ends the suite, and the same command goes on.
    """
    how = suite.numbers(suite.tasks[0], STUDENT, suite.seeds[0]).run
    stop_file = suite.folder / (STOP if suite.only is None else f"{STOP}-{suite.only[0]}")
    with together(how, stop, stop_file) as (ranks, guard):
        suite = ranks.first_does(lambda: _refused_or_shaped(suite))
        members, same = members_of(suite), Identities()
        share = suite.share()
        own = [one for one in members if (one.task.name, one.seed) in share]
        done = ranks.first_does(lambda: _done(members, same, suite))
        _tell(suite, members, own, done, ranks)
        if suite.placing.dry_run:
            return
        placement = _placement(suite, members[0], ranks)
        for one in own:
            if one.folder not in done:
                _make(suite, one, members, placement, ranks, guard)
        done = ranks.first_does(lambda: _done(members, same, suite))
        if left := [one.folder for one in members if one.folder not in done]:
            say(ranks, f"\n{_listed(left)}; the tables are made once they are there, by the same command")
            return
        _finish(suite, members, placement, ranks, guard, command, out)


def _refused_or_shaped(suite: Suite) -> Suite:
    """The suite, with the shape of a student that is cut from a teacher: the model's own, where none is given.

    Raises ConfigError and DataError for what would otherwise be found after hours.
    """
    refuse_strangers(suite.folder)
    config = load_config(suite.model)
    if set(suite.labels) & {SECOND} and _tokenizer(suite.model) != _tokenizer(suite.teacher):
        raise ConfigError(
            f"model {suite.model} and teacher {suite.teacher} have different tokenizers, so that the one cannot teach "
            "the other; give another --teacher, or --ways without second"
        )
    if suite.teacher:
        load_config(suite.teacher)
    if DIRECT not in suite.labels or suite.shaped():
        return suite
    family = family_of(config)
    own = {"student": family.name, "student_depth": family.number(config, "layers")}
    return replace(suite, cut=own | dict(suite.cut))


def _tokenizer(name: str) -> str:
    return fingerprint(load_tokenizer(name))


def _placement(suite: Suite, one: Member, ranks: Ranks) -> Placement:
    placing, device = suite.placing, ranks.device
    return ranks.all_do(
        lambda: place(
            placing.deepspeed, one.numbers, ranks.world, device.type, precisions_of(device), placing.precision
        )
    )


def _done(members: Sequence[Member], same: Identities, suite: Suite) -> set[Path]:
    """Folders of runs that are finished. Raises ConfigError where one holds another run."""
    found = set()
    for one in members:
        if apart := same.apart(one):
            raise ConfigError(
                f"{one.folder} holds another run ({apart}); give the same options to go on with it, or another "
                "--output_dir"
            )
        total = one.notes().get(TOTAL) if (one.folder / RESULTS).exists() else None
        if total is not None and one.results().step >= min(total, suite.placing.max_steps or total):
            found.add(one.folder)
    return found


def _tell(suite: Suite, members: Sequence[Member], own: Sequence[Member], done: Collection[Path], ranks: Ranks) -> None:
    """How many runs there are, and of a plan each of them."""
    line = f"  {len(done)} of {len(members)} runs are done in {suite.folder}"
    if suite.only is not None:
        left = sum(one.folder not in done for one in own)
        line += f"; share {suite.only[0]} of {suite.only[1]}: {len(own)} runs, {left} to be made"
    say(ranks, line)
    if suite.placing.dry_run:
        for one in own:
            say(ranks, f"  {one.folder}: {_in_words(one)}{'; done' if one.folder in done else ''}")


def _in_words(one: Member) -> str:
    loss, start = one.numbers.loss, one.numbers.start
    terms = {"task": loss.alpha_task, "KL": loss.alpha_ce, "COS": loss.alpha_cos}
    formula = " + ".join(f"{alpha:g} {name}" for name, alpha in terms.items() if alpha)
    return f"{start.model or f'cut from {start.teacher}'} on {formula}"


def _make(
    suite: Suite, one: Member, members: Sequence[Member], placement: Placement, ranks: Ranks, guard: Guard
) -> None:  # fmt: skip
    """Make a run, and note how beside its results."""
    guard.pass_on(ranks)
    say(ranks, f"\nrun {members.index(one) + 1} of {len(members)}: {one.title}, in {one.folder}\n")
    placing = replace(suite.placing, output_dir=str(one.folder))
    job = run.settled(placing, one.numbers, ranks)
    before = ranks.first_does(lambda: (one.folder / RESULTS).exists())
    results = run.perform(placing, job, ranks, guard)
    made = {} if before else made_now(placement, ranks)  # of one that was finished already nothing is known

    def note() -> None:
        one.note(one.notes() | made | {TOTAL: job.total_steps})
        if results.step >= job.total_steps:  # nothing goes on from them, and of many runs they fill a disk
            shutil.rmtree(one.folder / CHECKPOINTS, ignore_errors=True)

    ranks.first_does(note)
    gc.collect()  # its models hang in cycles, and would hold a device's memory beside the next run's


def _finish(
    suite: Suite, members: Sequence[Member], placement: Placement, ranks: Ranks, guard: Guard, command: str,
    out: Path | None,
) -> None:  # fmt: skip
    """Make the tables, unless another process of the same suite is about to."""
    with ExitStack() as stack:
        if busy := ranks.first_does(lambda: _hold(suite, stack)):
            say(ranks, f"\nall runs are done, and the tables are being made: {busy}")
            return
        runs = ranks.first_does(lambda: _all_there(suite, members))
        cells = {}
        typical = cross.medians(runs, STUDENT)
        if suite.cross and len(typical) > 1:
            say(ranks, "\neach task's student on the other tasks' text")
            cells = cross.Crossing(typical, placement.precision, ranks, guard).fill()
        ranks.first_does(lambda: suite_report.write(suite, runs, cells, command, out))


def _hold(suite: Suite, stack: ExitStack) -> str:
    """Hold the folder; of several processes that share the runs, all but the first get a line instead."""
    try:
        stack.enter_context(held(suite.folder))
    except ConfigError as error:
        if suite.only is None:
            raise
        return str(error)
    return ""


def _all_there(suite: Suite, members: Sequence[Member]) -> dict[Member, TaskResults]:
    """Results of all that were asked for, and of the other runs in the folder that compare with them."""
    asked, same = {one.folder for one in members}, Identities()
    found = {}
    for one in members_there(suite):
        if one.folder not in asked and (apart := same.apart(one)):
            print(f"not in the table: {one.folder}: {apart}", flush=True)
            continue
        found[one] = one.results()
    return found


def _listed(folders: Sequence[Path]) -> str:
    shown = ", ".join(map(str, folders[:6])) + (f" and {len(folders) - 6} more" if len(folders) > 6 else "")
    return f"{len(folders)} runs are missing: {shown}"
