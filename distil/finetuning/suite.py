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

from distil.engine.device import precisions_of
from distil.engine.ranks import Ranks
from distil.errors import ConfigError
from distil.finetuning import cross, run, suite_report
from distil.finetuning.results import TaskResults
from distil.finetuning.suite_check import refuse_other_length, refuse_text, shaped
from distil.finetuning.suite_folder import DATA, TOTAL, Member, members_of, members_there, refuse_strangers
from distil.finetuning.suite_identity import Identities
from distil.finetuning.suite_options import STUDENT, Suite
from distil.guard import Guard, together
from distil.made import made_now
from distil.placement import Placement, place
from distil.rundir import RESULTS, finished, held
from distil.stopping import StopRequest
from distil.training import STOP, say

CHECKPOINTS = "checkpoints"  # folder of them within a run


def fit(suite: Suite, stop: StopRequest, command: str, out: Path | None) -> None:
    """Make the runs of a suite, or its share of them, and print and write the tables once all are there.

    ``command`` is what a person types for it; ``out`` the folder of a run whose report is to show them. Raises what a
    fine-tuning raises; whatever stops a run ends the suite, and the same command goes on.
    """
    how = suite.numbers(suite.tasks[0], STUDENT, suite.seeds[0]).run
    stop_file = suite.folder / (STOP if suite.only is None else f"{STOP}-{suite.only[0]}")
    with together(how, stop, stop_file) as (ranks, guard):
        suite = ranks.first_does(lambda: _shaped(suite))
        members, same = members_of(suite), Identities(suite)
        share = suite.share()
        own = [one for one in members if (one.task.name, one.seed) in share]
        done = ranks.first_does(lambda: _done(members, same, suite))
        ranks.first_does(lambda: refuse_other_length(suite, members))
        ranks.first_does(lambda: refuse_text(one for one in own if one.folder not in done))
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
        _finish(suite, same, placement, ranks, guard, command, out)


def _shaped(suite: Suite) -> Suite:
    refuse_strangers(suite.folder)
    return shaped(suite)


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
    start = one.numbers.start
    return f"{start.model or f'cut from {start.teacher}'} on {one.numbers.loss.formula}"


def _make(
    suite: Suite, one: Member, members: Sequence[Member], placement: Placement, ranks: Ranks, guard: Guard
) -> None:  # fmt: skip
    """Make a run, and note how beside its results."""
    guard.pass_on(ranks)
    say(ranks, f"\nrun {members.index(one) + 1} of {len(members)}: {one.title}, in {one.folder}\n")
    placing = replace(suite.placing, output_dir=str(one.folder))
    job = run.settled(placing, one.numbers, ranks)
    before = ranks.first_does(lambda: finished(one.folder, job))
    results = run.perform(placing, job, ranks, guard)
    made = {} if before else made_now(placement, ranks)  # of one that was finished already nothing is known

    def note() -> None:
        one.note(one.notes() | made | {TOTAL: job.total_steps, DATA: one.numbers.source.data})
        if results.step >= job.total_steps:  # nothing goes on from them, and of many runs they fill a disk
            shutil.rmtree(one.folder / CHECKPOINTS, ignore_errors=True)

    ranks.first_does(note)
    gc.collect()  # its models hang in cycles, and would hold a device's memory beside the next run's


def _finish(
    suite: Suite, same: Identities, placement: Placement, ranks: Ranks, guard: Guard, command: str, out: Path | None
) -> None:  # fmt: skip
    """Make the tables, unless another process of the same suite is about to; the matrix last, since it takes time."""
    with ExitStack() as stack:
        if busy := ranks.first_does(lambda: _hold(suite, stack)):
            say(ranks, f"\nall runs are done, and the tables are being made: {busy}")
            return
        runs = ranks.first_does(lambda: _all_there(suite, same))
        report = suite_report.Report(suite, runs, command, out)
        ranks.first_does(report.write)
        crossing = cross.Crossing(suite, cross.medians(runs), placement.precision, ranks, guard)
        if suite.cross and crossing.several:
            say(ranks, "\neach task's students on the other tasks' text")
            cells = crossing.fill()
            ranks.first_does(lambda: report.add(cells))


def _hold(suite: Suite, stack: ExitStack) -> str:
    """Hold the folder; of several processes that share the runs, all but the first get a line instead."""
    try:
        stack.enter_context(held(suite.folder))
    except ConfigError as error:
        if suite.only is None:
            raise
        return str(error)
    return ""


def _all_there(suite: Suite, same: Identities) -> dict[Member, TaskResults]:
    """Results of all that were asked for, and of the other runs in the folder that compare with them."""
    found = {}
    for one in members_there(suite):
        apart = same.apart(one) if (one.folder / RESULTS).exists() else "it is not finished"
        if apart:
            print(f"not in the table: {one.folder}: {apart}", flush=True)
        else:
            found[one] = one.results()
    return found


def _listed(folders: Sequence[Path]) -> str:
    shown = ", ".join(map(str, folders[:6])) + (f" and {len(folders) - 6} more" if len(folders) > 6 else "")
    return f"{len(folders)} runs are missing: {shown}"
