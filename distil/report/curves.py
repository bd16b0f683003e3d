"""The curves' part of the page: panels by section, each with the names of its lines and where they end."""

from __future__ import annotations

import numpy as np

from distil.report.chart import svg
from distil.report.figures import of_tag, shown
from distil.report.markup import Markup, element, joined
from distil.report.panels import Panel, Series, name_of, sections, told
from distil.report.record import TENSORBOARD, Record
from distil.report.thinning import MEAN_OVER

NO_CURVES = f"No curves: there are no event files with scalars in {TENSORBOARD}/ of the run's folder."


def curves_part(record: Record) -> Markup:
    """Headings and charts of every tag; a sentence where there is none."""
    damage = _damage(record)
    if not record.curves:
        return element("section", element("h2", "Curves"), damage or element("p", NO_CURVES, class_="note"))
    last = max(int(curve.steps[-1]) for curve in record.curves.values())
    parts: list[Markup] = []
    found = sections(record.curves, record.task is not None)
    for title, panels in found.items():
        figures = [_figure(panel, last) for panel in panels]
        parts += [element("h3", title), element("div", *figures, class_="charts")]
    series = [series for panels in found.values() for panel in panels for series in panel.series]
    some_noisy = any(one.drawn is not one.curve for one in series)
    return element(
        "section", element("h2", "Curves"), element("p", _how_to_read(some_noisy), class_="note"), damage,
        *parts, _told(record),
    )  # fmt: skip


def _damage(record: Record) -> Markup:
    """Which files could not be read to their ends."""
    lines = (f"{TENSORBOARD}/{name} is damaged: curves lack what it has after that." for name in record.damaged)
    return joined(element("p", line, class_="note warning") for line in lines)


def _how_to_read(some_noisy: bool) -> str:
    faint = (
        f"Where a faint line is drawn, it is what was logged, and the strong one its mean over a {MEAN_OVER}th of the "
        "run. " if some_noisy else ""
    )  # fmt: skip
    return f"By optimiser step. {faint}The figure beside a name is where its line ends."


def _figure(panel: Panel, last: int) -> Markup:
    """A chart under its title, the names of its lines and where they end; one line alone needs no name."""
    keys = [_key(series, number, panel.kind) for number, series in enumerate(panel.series)]
    alone = len(keys) == 1
    parts = [
        element("span", panel.title, class_="title", title=", ".join(series.tag for series in panel.series)),
        element("span", class_="where"),
        keys[0] if alone else "",
        element("span", panel.note, class_="what") if panel.note else "",
        "" if alone else element("span", *keys, class_="keys"),
    ]
    return element("figure", element("figcaption", *parts), svg(panel, last), data_kind=panel.kind)


def _key(series: Series, number: int, kind: str) -> Markup:
    """A line's name with its colour, and its last finite value."""
    values = series.drawn.values
    finite = values[np.isfinite(values)]
    value = shown(float(finite[-1]), kind) if len(finite) else "no finite value"
    lost = int((~np.isfinite(series.curve.values)).sum())
    return element(
        "span", joined([element("i"), series.name, " "]) if series.name else "",
        element("b", value, data_value=number),
        element("span", f" ({lost:,} not finite)", class_="lost") if lost and len(finite) else "",
        class_=f"key {'reference' if series.reference else f's{number}'}",
    )  # fmt: skip


def _told(record: Record) -> Markup:
    """What needs no chart, by its last value."""
    values = {tag: shown(float(curve.values[-1]), of_tag(tag)) for tag, curve in told(record.curves).items()}
    if not values:
        return Markup()
    items = [element("div", element("dt", name_of(t), title=t), element("dd", v)) for t, v in values.items()]
    return joined([element("h3", "Counters, and what never changed"), element("dl", *items, class_="flat")])
