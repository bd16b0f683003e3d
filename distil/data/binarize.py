"""Text to token store: pieces of the input are cut by worker processes and stored in their order.

Memory is flat: a few pieces for each worker, whatever the corpus. Every second a journal says how far the draft
reaches, so that an interrupted build goes on from there; the bytes are the same, however often it was interrupted and
by however many workers it was made.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.data.cutting import BinarizeReport, Cutter
from distil.data.draft import Draft, refuse_heldout
from distil.data.pieces import Piece
from distil.data.sources import Source
from distil.data.store_writer import StoreWriter
from distil.data.workers import cut_all
from distil.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

RULES = 1  # of cutting and joining; another number where they change, as a build must not go on under other rules
JOURNAL_SECONDS = 1.0  # of work that a kill can cost; what the disk is asked to hold costs time of its own


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
    else:
        refuse_heldout(prefix)
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
            "rules": RULES,
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
        identity = journal.get("identity", {})
        for name, now in self._identity.items():
            if identity.get(name) != now:
                return f"{name}: {identity.get(name)} there, {now} here"
        for then, now in zip(journal["states"], self._states, strict=False):
            if then[0] != now[0]:
                return f"input: {then[0]}, not {now[0]}"
            if then != now:
                return f"input: {then[0]}, which has changed, or is read in another way"
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
                for (source, number), cut in cut_all(self._cutter, self._pieces_left(), workers):
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

    def _pieces_left(self) -> Iterator[tuple[tuple[int, int], Piece]]:
        """((source, number within it), piece) from where the build stands now."""
        first, skip = self.progress.source, self.progress.piece
        for source, of in enumerate(self._sources[first:], first):
            for number, piece in enumerate(of.pieces(skip), skip):
                yield (source, number), piece
            skip = 0

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
