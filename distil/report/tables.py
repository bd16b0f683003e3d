"""Tables of the page: what the run was measured at, what evaluations left, plan and settings."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from distil.config import GROUPS
from distil.exhibit import Exhibit
from distil.report.figures import COUNT, millions, of_tag, shown
from distil.report.markup import Markup, element, joined
from distil.report.record import AFTER, FINE_TUNING, Record
from distil.tables import Optimizer
from distil.tasks.tables import TaskData, TaskLoss, TaskModel

if TYPE_CHECKING:  # it loads torch
    from distil.finetuning.results import TaskResults

OUTDATED = "Older than the results above: the run has gone on since, or was copied. The command makes it anew."
_HEADS = {"name": "", "accuracy": "held-out accuracy", "milliseconds": "ms/sequence"}  # as results.table() has them
_OF_FINE_TUNING = {"student": TaskModel, "loss": TaskLoss, "data": TaskData, "optimizer": Optimizer}
_FIGURE = re.compile(r"[+\-−±<>~≈]?\s*[\d.∞–-]")  # noqa: RUF001 - how a cell begins that is a figure


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], strong: int | None = None) -> Markup:
    """A table in a box that scrolls sideways by itself; the first column names the rows, ``strong`` is set off."""
    rows = list(rows)
    right = [bool(rows) and all(_FIGURE.match(row[i]) for row in rows if row[i]) for i in range(len(columns))]
    aligned = ["figure" if i and right[i] else None for i in range(len(columns))]
    head = [element("th", name, scope="col", class_=c) for name, c in zip(columns, aligned, strict=True)]
    lines = []
    for number, row in enumerate(rows):
        cells = [element("td", cell, class_=c) for cell, c in zip(row[1:], aligned[1:], strict=True)]
        name = element("th", row[0], scope="row") if row else ""
        lines.append(element("tr", name, *cells, class_="strong" if number == strong else None))
    body = element("table", element("thead", element("tr", *head)), element("tbody", *lines))
    return element("div", body, class_="scroll", tabindex=0, role="region", aria_label=title)


def results_part(record: Record) -> Markup:
    """The results' table, or that there is none yet."""
    heading = element("h2", "Results")
    if record.results is None:
        note = "None yet: the model is measured when its training is done."
        return element("section", heading, element("p", note, class_="note"))
    made = _task_table(record.task_results) if record.task_results is not None else _tables_of(record.results)
    return element("section", heading, element("p", _measured(record), class_="note"), *made)


def _measured(record: Record) -> str:
    """When, and on how much, the figures were taken."""
    predicted, step = record.result("predicted"), record.result("step")
    places = f" on {predicted:,} held-out positions" if predicted else ""
    if record.task_results is not None:
        judged = [f"{count:,} examples of {split}" for split, count in record.task_results.judged.items()]
        places = f" on {' and '.join(judged)}; scores in percent"
    return f"Measured after step {step:,}{places}." if step is not None else ""


def _task_table(results: TaskResults) -> list[Markup]:
    columns, rows = results.cells()
    return [table("Results", columns, rows, strong=0)]


def _tables_of(results: Mapping[str, Any]) -> list[Markup]:
    """The rows of a distillation's results, and whatever else there is."""
    rows, parts = results.get("rows", []), []
    if rows:
        columns = sorted(dict.fromkeys(key for row in rows for key in row), key=lambda key: key != "name")
        cells = [[_cell(key, row.get(key)) for key in columns] for row in rows]
        strong = next((i for i, row in enumerate(rows) if row.get("name") == AFTER), None)
        parts.append(table("Results", [_HEADS.get(key, key.replace("_", " ")) for key in columns], cells, strong))
    others = _flat({k: v for k, v in results.items() if k not in ("rows", "step", "predicted")})
    if others:
        cells = [[name.replace("_", " "), _cell(name, value)] for name, value in others]
        parts.append(table("Other results", ("", "value"), cells))
    return parts


def _cell(key: str, value: Any) -> str:
    if key == "parameters" and isinstance(value, int | float):
        return millions(value)
    if key in ("milliseconds", "perplexity") and isinstance(value, int | float):
        return f"{value:,.1f}"
    return json.dumps(value) if isinstance(value, dict | list) else shown(value, of_tag(key))


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Names and values of nested objects, names joined by a slash."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += _flat(value, f"{before}{name}/") if isinstance(value, dict) else [(f"{before}{name}", value)]
    return found


def exhibits_part(record: Record) -> Markup:
    """What evaluations left, in order of their names; of a finished run without any, what adds some."""
    heading = element("h2", "Evaluations")
    if record.exhibits:
        found = (_exhibit(e, name, name in record.outdated) for name, e in record.exhibits.items())
        return element("section", heading, *found)
    if record.results is None:
        return Markup()
    lines = joined([element("code", command) for command in _evaluations(record)], "\n")
    said = element("p", "None yet. These commands add some; then the page is to be made again.", class_="note")
    return element("section", heading, said, element("pre", lines, class_="command", tabindex=0))


def _evaluations(record: Record) -> list[str]:
    """Commands that evaluate a finished run."""
    run = shlex.quote(str(record.folder))
    if record.task is None:
        return [f"launch/evaluate.py {name} --run {run}" for name in ("guess", "speed")]
    return [f"launch/evaluate.py speed --run {run} --teacher DIR_OR_NAME"]


def _exhibit(shown_one: Exhibit, name: str, outdated: bool) -> Markup:
    parts: list[Markup] = [element("h3", shown_one.title)]
    if outdated:
        parts.append(element("p", OUTDATED, class_="note warning"))
    if shown_one.note:
        parts.append(element("p", shown_one.note, class_="note"))
    if shown_one.columns:
        parts.append(table(shown_one.title, shown_one.columns, shown_one.rows))
    for image in shown_one.images:
        source = f"data:image/png;base64,{base64.b64encode(image.png).decode()}"
        picture = element("img", src=source, alt=image.caption)
        parts.append(element("figure", picture, element("figcaption", image.caption), class_="picture"))
    if shown_one.command:
        parts.append(element("pre", element("code", shown_one.command), class_="command", tabindex=0))
    return element("article", *parts, id=f"evaluation-{name}")


def plan_part(record: Record) -> Markup:
    """The plan as it was printed before the start."""
    if record.plan:
        rows = [(element("dt", name), element("dd", text)) for name, text in record.plan.items()]
        said = element("dl", *(part for pair in rows for part in pair), class_="plan")
    elif "plan" in record.texts:
        said = element("pre", record.texts["plan"], tabindex=0)
    else:
        said = element("p", "It is not recorded.", class_="note")
    return element("section", element("h2", "Plan"), said)


def settings_part(record: Record) -> Markup:
    """Everything that was set, folded up: the mathematics, how it ran, versions."""
    parts = [_mathematics(record)]
    rest = {k: v for k, v in record.identity.items() if k not in ("mathematics", FINE_TUNING)}
    parts.append(_folded("What else makes it this run", element("pre", _json(rest), tabindex=0)))
    names = {"ds_config": "ds_config, as DeepSpeed was given it", "versions": "Versions", "recipe": "As it was started"}
    for name, text in record.texts.items():
        if name != "plan":
            parts.append(_folded(names.get(name, name), element("pre", text, tabindex=0)))
    return element("section", element("h2", "Settings"), *parts)


def _mathematics(record: Record) -> Markup:
    """Every number that decides the weights, table by table, each with what it means."""
    meanings = GROUPS if record.task is None else _OF_FINE_TUNING
    parts = []
    for group, values in record.tables.items():
        fields = getattr(meanings.get(group), "__dataclass_fields__", {})
        helps = {name: field.metadata.get("help", "") for name, field in fields.items()}
        rows = [[name, _setting(value), helps.get(name, "")] for name, value in values.items()]
        parts += [element("h3", f"[{group}]"), table(group, ("field", "value", "meaning"), rows)]
    return _folded("Every number that decides the weights", joined(parts)) if parts else Markup()


def _setting(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "–"  # noqa: RUF001
    if isinstance(value, bool) or value in ("", None):
        return "–" if value in ("", None) else str(value).lower()  # noqa: RUF001
    return shown(value, COUNT) if isinstance(value, int) else str(value)


def _folded(title: str, content: Markup) -> Markup:
    return element("details", element("summary", title), content)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
