"""The table of an ablation: what each variant comes to over its seeds, and how far it is from the whole recipe.

Runs of equal seeds see the same batches, masks and dropout, so the variation is the mean of their differences, and its
spread that of the differences: what a seed does to both cancels.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from distil.markdown import aligned
from distil.results import Row
from distil.variants import Variant

COLUMNS = (
    "trained with", "held-out accuracy, %", "variation, points", "perplexity", "agreement, %", "paper: GLUE, points"
)  # fmt: skip
PAPER = "Sanh et al. 2019, arXiv 1910.01108, Table 4"


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation, which one value alone does not have."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of one value or more."""
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)

    def cell(self, form: str) -> str:
        """Mean in a format, and the deviation where there is one."""
        return f"{self.mean:{form}}" + ("" if self.deviation is None else f" \u00b1 {self.deviation:.2f}")


@dataclass(frozen=True)
class Line:
    """A variant over its seeds: accuracy and agreement in per cent, ``variation`` in points of held-out accuracy.

    ``agreement`` is None where nothing that is trained compares with a teacher.
    """

    variant: Variant
    accuracy: Spread
    variation: Spread
    perplexity: float
    agreement: float | None
    by_seed: Mapping[int, Row]

    def cells(self) -> list[str]:
        """The figures as a person reads them."""
        agreement = "-" if self.agreement is None else f"{self.agreement:.1f}"
        whole, paper = not self.variant.left_out, self.variant.paper
        return [
            self.variant.formula, self.accuracy.cell(".2f"), "0" if whole else self.variation.cell("+.2f"),
            f"{self.perplexity:,.1f}", agreement, "-" if paper is None else f"{paper:+.2f}" if paper else "0",
        ]  # fmt: skip

    def values(self) -> dict[str, Any]:
        """Everything as plain values that a JSON file can hold."""
        return {
            "name": self.variant.name, "left_out": list(self.variant.left_out), "formula": self.variant.formula,
            "accuracy_percent": asdict(self.accuracy), "variation_points": asdict(self.variation),
            "perplexity": self.perplexity, "agreement_percent": self.agreement,
            "paper_glue_points": self.variant.paper,
            "by_seed": {str(seed): asdict(row) for seed, row in self.by_seed.items()},
        }  # fmt: skip


def lines_of(variants: Sequence[Variant], found: Mapping[str, Mapping[int, Row]]) -> list[Line]:
    """A line for each variant, the whole recipe first; ``found`` has the students by variant's name and seed."""
    whole = found[variants[0].name]
    return [_line(variant, found[variant.name], whole) for variant in variants]


def _line(variant: Variant, rows: Mapping[int, Row], whole: Mapping[int, Row]) -> Line:
    agreements = [row.agreement for row in rows.values()]
    return Line(
        variant,
        Spread.of([100 * row.accuracy for row in rows.values()]),
        Spread.of([100 * (row.accuracy - whole[seed].accuracy) for seed, row in rows.items()]),
        statistics.fmean(row.perplexity for row in rows.values()),
        None if None in agreements else 100 * statistics.fmean(agreements),
        dict(rows),
    )


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))


def table(lines: Sequence[Line]) -> str:
    """The table, with what one must know to read it."""
    seeds = list(lines[0].by_seed)
    if len(seeds) > 1:
        others = [
            f"; of {line.variant.formula}: {_listed(line.by_seed)}" for line in lines if list(line.by_seed) != seeds
        ]
        over = (
            f"Mean \u00b1 sample standard deviation over {len(seeds)} seeds ({_listed(seeds)}{''.join(others)}); "
            "the variation is that of runs of equal seeds. Perplexity and agreement with the teacher are means."
        )  # fmt: skip
    else:
        over = f"One seed ({seeds[0]}) shows no spread: whether a variation is more than chance cannot be told."
    notes = [over]
    if any(line.variant.paper for line in lines):
        notes.append(
            f"The paper's column ({PAPER}) is DistilBERT's, whatever student is trained here, in points of the GLUE "
            "macro-score, where this table has held-out accuracy: only signs and order compare."
        )
    if any(line.agreement is None for line in lines):
        notes.append("Without an agreement: nothing that is trained there compares with the teacher.")
    return "\n".join([aligned(COLUMNS, [line.cells() for line in lines]), "", *notes])
