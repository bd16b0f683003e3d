"""What a run came to: teacher, student before and student after, measured on what was exported."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import torch
import transformers

from distil.data.batch import heldout_batches
from distil.errors import DataError
from distil.evaluation.heldout import compare
from distil.evaluation.speed import milliseconds_a_sequence
from distil.job import Job
from distil.markdown import aligned
from distil.models.constants import in_precision
from distil.models.loading import load_model
from distil.monitor import perplexity
from distil.rundir import RESULTS

AFTER = "student after"
COLUMNS = ("", "held-out accuracy", "perplexity", "agreement", "parameters", "ms/sequence")


@dataclass(frozen=True)
class Row:
    """One model's figures; None where nothing was measured (no held-out text, no teacher to agree with)."""

    name: str
    accuracy: float | None
    perplexity: float | None
    agreement: float | None
    parameters: int
    milliseconds: float

    def cells(self) -> list[str]:
        """The figures as a person reads them."""

        def share(x: float | None) -> str:
            return "-" if x is None else f"{100 * x:.1f} %"

        loss = "-" if self.perplexity is None else f"{self.perplexity:,.1f}"
        return [
            self.name, share(self.accuracy), loss, share(self.agreement),
            f"{self.parameters / 1e6:.1f} M", f"{self.milliseconds:.1f}",
        ]  # fmt: skip


@dataclass(frozen=True)
class Results:
    """The rows of the table, taken after ``step`` steps on so many held-out positions that are ``predicted``."""

    step: int
    predicted: int
    rows: tuple[Row, ...]

    def table(self) -> str:
        """The figures as a person reads them."""
        return aligned(COLUMNS, [row.cells() for row in self.rows])

    @property
    def student(self) -> Row:
        """The row of the student as it was exported."""
        return next(row for row in self.rows if row.name == AFTER)

    def write(self, folder: Path) -> None:
        """Keep the results in a run's folder."""
        draft = folder / f".{RESULTS}"
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.rename(folder / RESULTS)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The results kept in a run's folder. Raises DataError where they cannot be read."""
        try:
            values = json.loads((folder / RESULTS).read_text())
            return cls(values["step"], values["predicted"], tuple(Row(**row) for row in values["rows"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{folder / RESULTS} cannot be read ({error}); remove it to measure again") from error


def measure(job: Job, student: Path, step: int, dtype: torch.dtype, device: torch.device) -> Results:
    """Figures of the teacher, of the student as it began and of the exported one in folder ``student``.

    Held-out figures are in the precision of training; milliseconds are in fp32 on the same device.
    """
    recipe = job.recipe
    base, _ = job.load_teacher(torch.float32)
    before = in_precision(job.make_student(base).model, dtype).eval()
    base = in_precision(base, dtype)
    after, family = load_model(str(student), dtype)
    batches = heldout_batches(job.heldout, recipe.run.heldout_tokens, causal=family.causal)
    teacher = base.to(device) if job.comparable else None
    students = {"student before": before.to(device), AFTER: after.to(device)}
    figures = {
        name: compare(model, teacher, batches, recipe.loss, f"measuring {name}") for name, model in students.items()
    }
    last = figures[AFTER]
    rows = []
    if teacher is not None:
        rows.append(_row("teacher", teacher, last.teacher_accuracy, last.teacher_nll, 1.0, last.predicted))
    for name, model in students.items():
        f = figures[name]
        rows.append(_row(name, model, f.accuracy, f.nll, f.agreement if teacher is not None else None, f.predicted))
    return Results(step, last.predicted, tuple(rows))


def _row(
    name: str, model: transformers.PreTrainedModel, accuracy: float, nll: float, agreement: float | None, predicted: int
) -> Row:
    milliseconds = milliseconds_a_sequence(model.float())
    parameters = sum(p.numel() for p in model.parameters())
    if not predicted:
        return Row(name, None, None, None, parameters, milliseconds)
    return Row(name, accuracy, perplexity(nll), agreement, parameters, milliseconds)
