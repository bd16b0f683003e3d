"""Sizes, seconds and throughput of a student beside its teacher, each in several forms, as one table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from distil.evaluation.compressed import FP32, INT8, Form
from distil.evaluation.examples import Evaluation, Inputs, Said, batches
from distil.evaluation.kept import ALIKE, alike, read
from distil.evaluation.loaded import Loaded
from distil.evaluation.speed import FOR_THROUGHPUT, LEAST_BATCHES, Latency, take_turns, throughput
from distil.exhibit import Exhibit
from distil.machine import device_name
from distil.markdown import aligned

COLUMNS = ("", "parameters", "MB", "set, s", "speed-up", "p50, ms", "p90, ms", "p99, ms", "score, %", "as fp32, %")
# Sanh et al. 2019, arXiv 1910.01108, section 4.1: STS-B's development set on a CPU, batch 1; the MB of a mobile app.
PAPER_NOTE = (
    "The paper's rows (arXiv 1910.01108) are of STS-B's development set on another CPU, their speed-up against its "
    "BERT; its 207 MB are those of the model in its mobile app for answers to questions: 66 M parameters in fp32 are "
    "265 MB."
)
PAPER = (
    ("paper: BERT-base", "110 M", "-", "668", "1.00", "-", "-", "-", "-", "-"),
    ("paper: DistilBERT", "66 M", "207 (app)", "410", "1.63", "-", "-", "-", "-", "-"),
)
SPEED, THROUGHPUT = "speed", "speed_throughput"  # names of the exhibits, in the order in which they are shown


@dataclass(frozen=True)
class Row:
    """One form of one model. ``score`` and ``alike`` are fractions; None where no score is known.

    ``throughput`` is sequences a second by batch size.
    """

    model: str
    form: str
    parameters: int
    bytes: int
    latency: Latency
    score: float | None
    alike: float
    throughput: Mapping[int, float]


@dataclass(frozen=True)
class Speeds:
    """All rows, the one that others are held against first, and what was done how."""

    what: str
    sequences: int
    threads: int
    processor: str
    torch: str
    date: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def values(self) -> dict[str, Any]:
        """Everything as plain values that a JSON file can hold."""
        return asdict(self)

    def cells(self) -> list[tuple[str, ...]]:
        """Rows of the first table, the paper's last."""
        base = self.rows[0].latency.seconds
        return [_cells(row, base) for row in self.rows] + list(PAPER)

    def throughput_table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Columns and rows of the second table."""
        sizes = list(self.rows[0].throughput)
        rows = [(f"{r.model} {r.form}", *(f"{r.throughput[size]:,.1f}" for size in sizes)) for r in self.rows]
        return ("sequences/s, batches of", *map(str, sizes)), rows

    @property
    def note(self) -> str:
        """What one must know to read the first table."""
        size = "MB are 10^6 bytes of a file"
        if any(row.form == INT8 for row in self.rows):
            size += f", of {INT8} those of its tensors"
        text = (
            f"{self.what}; batch 1, {self._threads} of {self.processor}, torch {self.torch}, {self.date}; all rows by "
            f"turns; tokenising is not timed. Speed-up against the first row. {size}. {PAPER_NOTE}"
        )
        return " ".join([text, *self.notes])

    @property
    def throughput_note(self) -> str:
        """What one must know to read the second table."""
        which = f"the set's first {FOR_THROUGHPUT} sequences"
        if self.sequences < FOR_THROUGHPUT:
            which = f"the set's {self.sequences:,} sequences, again and again up to {FOR_THROUGHPUT}"
        which += ", as far as they fill batches"
        if max(self.rows[0].throughput) > FOR_THROUGHPUT:
            which += " (of larger batches as many as fill one)"
        return (
            f"Of {which}, sorted by length so that little is padding; {self._threads}, all rows by turns, at least "
            f"{LEAST_BATCHES} batches of each size timed, the same ones again where there are fewer."
        )

    @property
    def _threads(self) -> str:
        return f"{self.threads} thread{'s' if self.threads > 1 else ''}"

    def text(self) -> str:
        """Both tables, each with its note."""
        parts = [aligned(COLUMNS, self.cells()), self.note]
        if self.rows[0].throughput:
            parts += [aligned(*self.throughput_table()), self.throughput_note]
        return "\n\n".join(parts)

    def exhibits(self, command: str) -> dict[str, Exhibit | None]:
        """Both tables for a run's report, by name; None for what was not measured."""
        found: dict[str, Exhibit | None] = dict.fromkeys((SPEED, THROUGHPUT))
        found[SPEED] = Exhibit(
            title="Size and speed", note=self.note, columns=COLUMNS, rows=tuple(self.cells()), command=command
        )
        if self.rows[0].throughput:
            columns, rows = self.throughput_table()
            found[THROUGHPUT] = Exhibit(
                title="Throughput", note=self.throughput_note, columns=columns, rows=tuple(rows), command=command
            )
        return found


def _cells(row: Row, base: float) -> tuple[str, ...]:
    t = row.latency
    milliseconds = (f"{x:.1f}" for x in (t.p50, t.p90, t.p99))
    size = f"{row.bytes / 1e6:,.1f}"
    return (
        f"{row.model} {row.form}", f"{row.parameters / 1e6:,.1f} M", size, f"{t.seconds:,.1f}",
        f"{base / t.seconds:.2f}", *milliseconds,
        "-" if row.score is None else f"{100 * row.score:.1f}", f"{100 * row.alike:.1f}",
    )  # fmt: skip


def measure(
    models: Sequence[tuple[Loaded, Evaluation, Sequence[Form]]], sizes: Sequence[int], threads: int,
    notes: Sequence[str] = (),
) -> Speeds:  # fmt: skip
    """Time every form of every model, fp32 among them, on the whole of its set, by turns.

    The models are of one kind, and their sets of the same text, each as its model's tokenizer has it.
    """
    entries = {(loaded.title, form.name): (loaded, of, form) for loaded, of, forms in models for form in forms}
    runners = {key: form.run for key, (_, _, form) in entries.items()}
    sets = {key: (of.examples, loaded.pad_id) for key, (loaded, of, _) in entries.items()}
    said: dict[tuple[str, str], list[Said]] = {key: [] for key in entries}

    def watch(key: tuple[str, str], inputs: Inputs, logits: torch.Tensor) -> None:
        said[key] += read(entries[key][0].kind, logits, inputs)

    work = {key: batches(examples, 1, pad_id) for key, (examples, pad_id) in sets.items()}
    seconds = take_turns(runners, work, watch=watch, title="batch 1")
    rates = throughput(runners, sets, sizes)
    rows = []
    for key, (loaded, of, form) in entries.items():
        rows.append(
            Row(
                loaded.title,
                form.name,
                loaded.parameters,
                form.bytes,
                Latency.of(seconds[key]),
                of.score(said[key]) if of.score else None,
                alike(loaded.kind, said[key], said[loaded.title, FP32]),
                rates[key],
            )  # fmt: skip
        )
    loaded, of, _ = models[0]
    words = f"Score is {of.scored}. " if of.score else ""
    words += f"As fp32: {ALIKE[loaded.kind]}."
    return Speeds(
        of.what, len(of.examples), threads, device_name(torch.device("cpu")), torch.__version__,
        time.strftime("%F"), tuple(rows), (words, *notes),
    )  # fmt: skip
