"""Ranks that have met, and what watches over the runs that follow one another in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from distil.engine.heartbeat import Heartbeat
from distil.engine.ranks import Ranks, start_ranks, stop_ranks
from distil.errors import Stopped, UserError
from distil.stopping import StopRequest
from distil.tables import Run


@dataclass(frozen=True)
class Guard:
    """What watches over all runs of a process; ``files`` stop any of them, as a file in its own folder does."""

    stop: StopRequest
    heartbeat: Heartbeat
    files: tuple[Path, ...] = ()

    def pass_on(self, ranks: Ranks) -> None:
        """Raise Stopped, on all ranks, where one has been asked to stop while nothing is to be saved."""
        if code := ranks.most([self.stop.asked(ranks.first)])[0]:
            why = next(why for why in ranks.gather(self.stop.why) if why is not None)
            if ranks.first:
                self.stop.obeyed()
            raise Stopped(f"{why}; there was nothing to save, the same command goes on", code)

    def stopped_by(self, *files: Path) -> Guard:
        """The same with these files for all runs, which are looked for from here on."""
        guard = replace(self, files=files)
        guard.watch()
        return guard

    def watch(self, *files: Path) -> None:
        """From here on these files stop the run, and those that stop any."""
        self.stop.files = (*files, *self.files)


@contextmanager
def together(how: Run, stop: StopRequest, *files: Path) -> Iterator[tuple[Ranks, Guard]]:
    """All ranks of the launcher, met and watched over, for one run or for several that follow one another.

    A run that is asked to ``stop``, or by one of ``files``, raises Stopped.
    """
    ranks = start_ranks()
    heartbeat = Heartbeat(ranks, stop, how.silence_seconds, how.hang_seconds)
    heartbeat.start()
    guard = Guard(stop, heartbeat, files)
    guard.watch()
    try:
        yield ranks, guard
    except UserError as ending:
        if not ending.shared:
            raise ranks.cause_of(ending) or ending from None
        heartbeat.end()
        stop_ranks()
        raise
    except Exception as error:
        stop.hurry = True  # whoever is silent now has gone
        # Other ranks may be waiting in a collective: to leave politely could hang.
        if (cause := ranks.cause_of(error)) is not None:
            raise cause from None
        raise
    heartbeat.end()
    stop_ranks()
