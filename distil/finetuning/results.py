"""What a fine-tuning came to: the model's metrics beside its teacher's and the paper's."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from distil.errors import DataError
from distil.folder import write_whole
from distil.markdown import aligned
from distil.rundir import RESULTS
from distil.tasks.metrics import mean_percent

Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class TaskResults:
    """Figures after ``step`` steps; ``scores`` are fractions, by split and metric, of so many ``judged`` examples.

    ``agreement`` is by split, of model and teacher. ``seconds`` is how long the process that finished the run has
    trained, from ``from_step`` on, without evaluations. The paper's figures are of a task's
    whole text, and not of a ``subset``.
    """

    task: str
    kind: str
    step: int
    scores: Scores
    teacher_scores: Scores
    agreement: dict[str, float]
    judged: dict[str, int]
    train_examples: int
    parameters: int
    teacher_parameters: int | None
    seconds: float
    from_step: int
    paper: dict[str, tuple[float, ...]]
    subset: bool = False

    @property
    def score(self) -> float:
        """The task's one score, in percent."""
        return mean_percent(self.scores)

    @property
    def retention(self) -> float | None:
        """The score as a share of the teacher's; None without one, or where the teacher's is not above 0."""
        theirs = mean_percent(self.teacher_scores) if self.teacher_scores else 0.0
        return self.score / theirs if theirs > 0 else None

    def table(self) -> str:
        """The figures as a person reads them, in percent."""
        return aligned(*self.cells())

    def cells(self) -> tuple[tuple[str, ...], list[list[str]]]:
        """Columns and rows of the table."""
        metrics = [(split, name) for split, of in self.scores.items() for name in of]
        several = len(self.scores) > 1
        names = [
            f"{name.replace('_', ' ')} ({split})" if several else name.replace("_", " ") for split, name in metrics
        ]
        columns = ("", *names, "score", "agreement", "parameters")
        rows = [self._row("this model", self.scores, metrics, self.parameters)]
        if self.teacher_scores:
            rows.append(self._row("its teacher", self.teacher_scores, metrics, self.teacher_parameters))
            if self.retention is not None:
                rows.append(["kept", *[""] * len(metrics), f"{100 * self.retention:.1f} %", "", ""])
        for who, figures in self.paper.items():
            whole = sum(figures) / len(figures)
            each = [f"{x:.1f}" for x in figures] if len(figures) == len(metrics) else [""] * len(metrics)
            named = {"student": "paper: DistilBERT", "teacher": "paper: BERT-base"}.get(who, f"paper: {who}")
            rows.append([named + ", whole task" * self.subset, *each, f"{whole:.1f}", "", ""])
        return columns, rows

    def _row(self, name: str, scores: Scores, metrics: list[tuple[str, str]], parameters: int | None) -> list[str]:
        agreed = "-"
        if scores is self.scores and self.agreement:
            agreed = f"{100 * sum(self.agreement.values()) / len(self.agreement):.1f} %"
        each = [f"{100 * scores[split][metric]:.2f}" for split, metric in metrics]
        return [name, *each, f"{mean_percent(scores):.2f}", agreed, f"{(parameters or 0) / 1e6:.1f} M"]

    def write(self, folder: Path) -> None:
        """Keep the results in a run's folder."""
        values: dict[str, Any] = {**asdict(self), "score": self.score, "retention": self.retention}
        write_whole(folder / RESULTS, json.dumps(values, indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The results kept in a run's folder. Raises DataError where they cannot be read."""
        try:
            values = json.loads((folder / RESULTS).read_text(encoding="utf-8"))
            for derived in ("score", "retention"):
                del values[derived]
            values["paper"] = {who: tuple(figures) for who, figures in values["paper"].items()}
            return cls(**values)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{folder / RESULTS} cannot be read ({error}); remove it to measure again") from error
