"""Key figures of a run: what a reader looks for first, each held against what makes it mean something."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distil.report.figures import COUNT, NOTHING, SHARE, duration, millions, of_tag, shown
from distil.report.panels import evaluated, name_of
from distil.report.record import AFTER, Record
from distil.tasks.metrics import mean_percent

if TYPE_CHECKING:  # it loads torch
    from distil.finetuning.results import TaskResults

MOST_TILES = 6


@dataclass(frozen=True)
class Tile:
    """A figure, what it is, and a line of what it is to be held against."""

    value: str
    name: str
    against: str = ""


def tiles(record: Record) -> list[Tile]:
    """The figures that a reader looks for first."""
    rows = record.rows()
    student = rows.get(AFTER)
    if record.task_results is not None:
        return _of_task(record.task_results)
    if student is not None:
        found = _of_results(student, rows.get("student before", {}), rows.get("teacher", {}))
    else:
        found = _of_top(record) or _of_curves(record)
    return [*found][:MOST_TILES]


def _of_results(student: dict[str, Any], before: dict[str, Any], teacher: dict[str, Any]) -> list[Tile]:
    """Of a distillation's table."""
    return [tile for tile in (
        _kept(student, before, teacher), _agreement(student, before, teacher), _size(student, teacher),
        _speed(student, teacher), _perplexity(student, before, teacher),
    ) if tile is not None]  # fmt: skip


def _of_task(results: TaskResults) -> list[Tile]:
    """Of a fine-tuning's results."""
    score, agreed = f"{results.score:.1f}", list(results.agreement.values())
    found = [Tile(score, "score", "in percent")]
    if results.retention is not None:
        theirs = mean_percent(results.teacher_scores)
        found = [Tile(shown(results.retention, SHARE), "of the teacher's score", f"{score} against {theirs:.1f}")]
    if agreed:
        found.append(Tile(shown(sum(agreed) / len(agreed), SHARE), "agreement with the teacher"))
    found.append(_size({"parameters": results.parameters}, {"parameters": results.teacher_parameters}))
    since = f"from step {results.from_step:,} on" if results.from_step else "without evaluations"
    return [*found, Tile(duration(results.seconds), "of training", since)]


def _number(row: dict[str, Any], name: str) -> float | None:
    value = row.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _before(row: dict[str, Any], name: str) -> str:
    """A share before training; empty where there is none."""
    value = _number(row, name)
    return "" if value is None else f"{shown(value, SHARE)} before training"


def _kept(student: dict[str, Any], before: dict[str, Any], teacher: dict[str, Any]) -> Tile | None:
    own, theirs = _number(student, "accuracy"), _number(teacher, "accuracy")
    if own is None:
        return None
    start = _before(before, "accuracy")
    if not theirs:
        return Tile(shown(own, SHARE), "held-out accuracy", start)
    against = f"{shown(own, SHARE)} against {shown(theirs, SHARE)}{f'; {start}' if start else ''}"
    return Tile(shown(own / theirs, SHARE), "of the teacher's held-out accuracy", against)


def _agreement(student: dict[str, Any], before: dict[str, Any], teacher: dict[str, Any]) -> Tile | None:
    own = _number(student, "agreement")
    if own is None or not teacher:
        return None
    return Tile(shown(own, SHARE), "agreement with the teacher", _before(before, "agreement"))


def _size(student: dict[str, Any], teacher: dict[str, Any]) -> Tile | None:
    own, theirs = _number(student, "parameters"), _number(teacher, "parameters")
    if own is None:
        return None
    against = f"{own / theirs:.0%} of the teacher's {millions(theirs)}" if theirs else ""
    return Tile(millions(own), "parameters", against)


def _speed(student: dict[str, Any], teacher: dict[str, Any]) -> Tile | None:
    own, theirs = _number(student, "milliseconds"), _number(teacher, "milliseconds")
    if not own:
        return None
    if not theirs:
        return Tile(f"{own:.1f} ms", "a sequence", "batch 1, fp32")
    return Tile(f"{theirs / own:.2f}×", "as fast as the teacher", f"{own:.1f} ms a sequence against {theirs:.1f}")


def _perplexity(student: dict[str, Any], before: dict[str, Any], teacher: dict[str, Any]) -> Tile | None:
    own = _number(student, "perplexity")
    if own is None:
        return None
    theirs, start = _number(teacher, "perplexity"), _number(before, "perplexity")
    against = [
        "" if theirs is None else f"teacher {theirs:,.1f}",
        "" if start is None else f"{start:,.1f} before training",
    ]
    return Tile(f"{own:,.1f}", "held-out perplexity", "; ".join(text for text in against if text))


def _of_top(record: Record) -> list[Tile]:
    """Of other results: the numbers at their top, by name."""
    found = [(name, record.result(name)) for name in record.results or {} if name not in ("step", "predicted", "seed")]
    return [Tile(shown(v, of_tag(name)), name_of(name).lower()) for name, v in found if v is not None]


def _of_curves(record: Record) -> Iterator[Tile]:
    """Of a run without results: where it stands."""
    planned = record.planned
    share = f"{record.step / planned:.0%} of {planned:,}" if planned else ""
    if record.step:
        yield Tile(shown(record.step, COUNT), "steps", share)
    for tag, curve in record.curves.items():
        part, _, name = tag.partition("/")
        if tag == "loss/total" or (evaluated(tag) and not name.startswith("teacher_")):
            split = "" if part in ("loss", "heldout", "score") else f"on {part}, "
            step = f"{split}at step {curve.steps[-1]:,}"
            teacher = record.last(f"{part}/teacher_{name.rpartition('_')[2]}")
            kind = of_tag(tag)
            against = f"{step}; teacher {shown(teacher, kind)}" if teacher is not None else step
            value = record.last(tag)
            yield Tile(shown(value, kind) if value is not None else NOTHING, name_of(tag).lower(), against)
