"""Text to token store: pieces of the input are cut by worker processes and stored in their order.

Memory is flat: a few pieces for each worker, whatever the corpus. Every second a journal says how far the draft
reaches, so that an interrupted build goes on from there; the bytes are the same, however often it was interrupted and
by however many workers it was made.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.data.cutting import BinarizeReport, Cut, Cutter
from distil.data.draft import Draft
from distil.data.pieces import Piece
from distil.data.sources import Source
from distil.data.store_writer import StoreWriter
from distil.data.words import Encoder
from distil.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

JOURNAL_SECONDS = 1.0  # of work that a kill can cost; what the disk is asked to hold costs time of its own
AHEAD = 2  # pieces in hand for each worker, so that none waits for the writer
_worker: tuple[Cutter, Encoder] | None = None  # of a worker process: made once, used for every piece


def binarize(
    sources: Sequence[Source],
    tokenizer: PreTrainedTokenizerFast,
    prefix: str | Path,
    *,
    max_length: int = 512,
    min_length: int = 12,
    heldout_fraction: float = 0.0,
    overwrite: bool = False,
    workers: int = 1,
    progress: bool = True,
) -> BinarizeReport:
    """Write the store ``prefix``, and ``prefix``-heldout if ``heldout_fraction`` > 0, once both are complete.

    Lengths are in ids, [CLS] and [SEP] included. A text is cut into pieces of ``max_length``; pieces below
    ``min_length`` and pieces at least half unknown are dropped. A document is held out by a hash of itself alone, so
    neither order nor repetition moves it. An interrupted build leaves PREFIX.building; the same call goes on from it.
    Raises ConfigError on a bad setting, DataError on unusable input or output.
    """
    if not 3 <= min_length <= max_length:
        raise ConfigError(f"min_length {min_length} and max_length {max_length} must satisfy 3 <= min <= max")
    if not 0.0 <= heldout_fraction < 1.0:
        raise ConfigError(f"heldout_fraction {heldout_fraction} must be at least 0 and below 1")
    if workers < 1:
        raise ConfigError(f"workers is {workers}; it must be above 0")
    prefix = str(Path(prefix))
    outputs = {"store": prefix}
    if heldout_fraction:
        outputs["heldout"] = f"{prefix}-heldout"
    elif os.path.exists(f"{prefix}-heldout.json"):
        raise DataError(
            f"{prefix}-heldout: a held-out store of another build, whose texts {prefix} would now train on; "
            "remove it, hold out again, or choose another --out"
        )
    cutter = Cutter.of(tokenizer, max_length, min_length, heldout_fraction)
    with Draft(outputs, overwrite) as draft:
        build = _Build(draft, cutter, list(sources), outputs, overwrite)
        if not draft.sealed:
            build.fill(workers, progress)
        draft.publish()
    return build.progress.report


@dataclass
class Progress:
    """How far a build has come: sources done, pieces of the next one done, positions of the writers, counts."""

    source: int = 0
    piece: int = 0
    positions: dict[str, list[int]] = field(default_factory=dict)
    report: BinarizeReport = field(default_factory=BinarizeReport)


class _Build:
    """One build in its draft, new or taken up again."""

    def __init__(
        self, draft: Draft, cutter: Cutter, sources: list[Source], outputs: dict[str, str], overwrite: bool
    ) -> None:
        self._draft, self._cutter, self._sources, self._outputs = draft, cutter, sources, outputs
        self._identity = {
            "tokenizer": cutter.origin.tokenizer["fingerprint"],
            **{name: getattr(cutter, name) for name in ("min_length", "heldout_fraction")},
            "max_length": cutter.origin.max_length,
            "join": [source.join for source in sources],
            "text_field": [source.text_field for source in sources],
        }
        self._states = [source.state() for source in sources]
        self.progress = Progress()
        if (journal := draft.read_journal()) is None:
            draft.discard()
        elif why := self._differs(journal):
            if not overwrite:
                raise ConfigError(
                    f"{draft.folder}: holds an unfinished build of something else ({why}); repeat that command to go "
                    "on, remove the folder, or pass --overwrite to begin anew"
                )
            draft.discard()
        else:
            report = BinarizeReport(**journal["report"])
            self.progress = Progress(journal["source"], journal["piece"], journal["positions"], report)

    def _differs(self, journal: dict[str, Any]) -> str:
        """How this build's settings, or the inputs that it has read, differ from those that the journal names."""
        for name, now in self._identity.items():
            if journal["identity"].get(name) != now:
                return f"{name}: {journal['identity'].get(name)} there, {now} here"
        for then, now in zip(journal["states"], self._states[: len(journal["states"])], strict=False):
            if then != now:
                return f"input: {then[0]}, {'which has changed' if then[0] == now[0] else f'not {now[0]}'}"
        if len(journal["states"]) > len(self._states) or (journal.get("sealed") and journal["all"] != self._states):
            return "input: other files"
        return ""

    def fill(self, workers: int, progress: bool) -> None:
        """Cut and store all pieces that are left, and seal the stores."""
        from tqdm import tqdm

        at = self.progress
        origin = self._cutter.origin
        writers = {
            name: StoreWriter(self._draft, name, origin, tuple(at.positions.get(name, (0, 0))))
            for name in self._outputs
        }
        # disable=None: no bar where nobody watches, so that logs stay clean and an error stands alone.
        bar = tqdm(unit=" texts", initial=at.report.texts, disable=None if progress else True, leave=False)
        noted = time.monotonic()
        try:
            with bar:
                for source, number, cut in _cuts(self._cutter, self._sources, at, workers):
                    writers["store"].append(cut.ids, cut.sizes)
                    if "heldout" in writers:
                        writers["heldout"].append(cut.heldout_ids, cut.heldout_sizes)
                    at.source, at.piece = source, number + 1
                    at.report.add(cut.report)
                    if time.monotonic() - noted >= JOURNAL_SECONDS:
                        self._note(writers)
                        noted = time.monotonic()
                    bar.update(cut.report.texts)
            self._refuse_empty(writers)
            for writer in writers.values():
                writer.seal()
        finally:
            for writer in writers.values():
                writer.close()
        self._note(None)

    def _note(self, writers: dict[str, StoreWriter] | None) -> None:
        """Write the journal; without writers, that all is sealed."""
        at = self.progress
        if writers is not None:
            at.positions = {name: list(writer.sync()) for name, writer in writers.items()}
        sealed = {"sealed": True, "all": self._states} if writers is None else {}
        read = self._states[: at.source + 1]
        self._draft.write_journal({**asdict(at), "identity": self._identity, "states": read, **sealed})

    def _refuse_empty(self, writers: dict[str, StoreWriter]) -> None:
        for name, writer in writers.items():
            if not writer.sequences:
                self._draft.discard()
                report = self.progress.report
                raise DataError(
                    f"{self._outputs[name]}: the input holds no usable sequence for it: {report.texts} texts read, "
                    f"{report.dropped_short} pieces shorter than {self._cutter.min_length} tokens, "
                    f"{report.dropped_unknown} at least half unknown; give more text, or another tokenizer"
                )


def _cuts(cutter: Cutter, sources: list[Source], at: Progress, workers: int) -> Iterator[tuple[int, int, Cut]]:
    """(source, piece within it, what became of it) for all pieces from a position on, in order."""
    pieces = (
        (source, number, piece)
        for source in range(at.source, len(sources))
        for skip in [at.piece if source == at.source else 0]
        for number, piece in enumerate(sources[source].pieces(skip), skip)
    )
    if workers == 1:
        encoder = cutter.encoder()
        for source, number, piece in pieces:
            yield source, number, cutter.cut(piece, encoder)
        return
    # Spawned, not forked: the caller may hold threads and locks of torch, which a forked child would find as they were.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(cutter,))
    waiting: deque[tuple[int, int, Future[Cut]]] = deque()
    try:
        for source, number, piece in pieces:
            waiting.append((source, number, _submitted(pool, piece)))
            if len(waiting) > AHEAD * workers:
                yield _settled(*waiting.popleft())
        while waiting:
            yield _settled(*waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, piece: Piece) -> Future[Cut]:
    """Hand out a piece. Processes that this starts inherit that interrupts are blocked: those are ours to handle."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_cut_in_worker, piece)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _settled(source: int, number: int, cut: Future[Cut]) -> tuple[int, int, Cut]:
    try:
        return source, number, cut.result()
    except BrokenProcessPool as error:
        raise DataError(
            "a worker process died, for want of memory perhaps; run the same command again, with fewer --workers: "
            "it goes on from where it was"
        ) from error


def _start_worker(cutter: Cutter) -> None:
    global _worker  # noqa: PLW0603 - what a process makes once
    parent = multiprocessing.parent_process()

    def leave_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    _worker = cutter, cutter.encoder()


def _cut_in_worker(piece: Piece) -> Cut:
    cutter, encoder = _worker
    return cutter.cut(piece, encoder)
