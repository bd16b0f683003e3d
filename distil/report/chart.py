"""A panel as SVG, drawn by hand so that colours follow the page and sizes fit a phone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from distil.report.events import Curve
from distil.report.figures import SHARE, short, shown
from distil.report.markup import Markup, element
from distil.report.panels import Panel, Series
from distil.report.thinning import thinned

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 40, 352, 8, 166  # of the plot; more at the left where labels are long
_LOG_FROM, _LOG_TO = 30.0, 1e30  # ratios of the largest to the smallest value for which such an axis is logarithmic
_TICKS = 6
_DIGIT = 6.2  # pixels, about


@dataclass(frozen=True)
class Axis:
    """Values from ``low`` to ``high`` onto pixels from ``start`` to ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, values: np.ndarray) -> np.ndarray:
        """Pixels of values."""
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.log10(values) if self.log else np.asarray(values, dtype=float)
        return self.start + (values - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round values along the axis, at most so many."""
        if self.log:
            low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for steps in ((1, 2, 5), (1, 3), (1,)):
                found = [s * 10.0**e for e in range(low, high + 1) for s in steps if self._holds(s * 10.0**e)]
                if len(found) <= most:
                    return found
            return found[:: -(-len(found) // most)]
        rough = (self.high - self.low) / most
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(s * unit for s in (1, 2, 2.5, 5, 10) if s * unit >= rough * (1 - 1e-9))
        first = math.ceil(self.low / step - 1e-9)
        return [float(f"{n * step:.12g}") for n in range(first, math.floor(self.high / step + 1e-9) + 1)]

    def _holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def svg(panel: Panel, last_step: int) -> Markup:
    """The panel's chart over steps 0 to ``last_step``, which all charts of a page share."""
    y = _vertical(panel)
    widest = max((len(_tick(value, panel.kind, y)) for value in y.ticks(_TICKS)), default=0)
    x = Axis(0, max(last_step, 1), max(LEFT, 10 + _DIGIT * widest), RIGHT)
    lines = [_line(panel, i, x, y) for i in range(len(panel.series))]
    return element(
        "svg", _grid(panel.kind, x, y), *reversed(lines),
        element("line", class_="cursor", x1=0, x2=0, y1=TOP, y2=BOTTOM),
        viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=_in_words(panel),
        data_from=x.low, data_to=x.high, data_left=x.start, data_right=x.end,
    )  # fmt: skip


def _vertical(panel: Panel) -> Axis:
    """An axis on which all finite values have room."""
    values = np.concatenate([series.curve.values for series in panel.series])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if panel.by_ratio and low > 0 and _LOG_FROM * low < high < _LOG_TO * low:
        room = (high / low) ** 0.04
        return Axis(low / room, high * room, BOTTOM, TOP, log=True)
    if 0 <= low < 0.4 * high:
        low = 0.0
    room = 0.05 * (high - low or abs(high) or 1.0)
    return Axis(low - room if low else 0.0, high + room, BOTTOM, TOP)


def _grid(kind: str, x: Axis, y: Axis) -> Markup:
    """Lines and labels of both axes."""
    parts, end = [], f"step {short(x.high)}"
    for value, at in ((v, float(y.at(np.array(v)))) for v in y.ticks(_TICKS)):
        parts.append(element("line", x1=x.start, x2=x.end, y1=f"{at:.1f}", y2=f"{at:.1f}"))
        parts.append(element("text", _tick(value, kind, y), x=x.start - 6, y=f"{at + 3.5:.1f}", class_="y"))
    for value in x.ticks(4):
        at = float(x.at(np.array(value)))
        room = RIGHT - 12 - _DIGIT * (len(end) + len(short(value)) / 2)  # for it beside the label at the end
        if value == int(value) and at < room:
            parts.append(element("text", short(value), x=f"{at:.1f}", y=HEIGHT - 8, class_="x"))
    parts.append(element("text", end, x=RIGHT, y=HEIGHT - 8, class_="end"))
    return element("g", *parts, class_="grid")


def _tick(value: float, kind: str, axis: Axis) -> str:
    """A label, in the style of the others on its axis."""
    if kind == SHARE:
        return f"{100 * value:.4g} %"
    if 0 < axis.high < 0.01 and value:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if 1e4 <= axis.high < 1e6 and abs(value) >= 1e3:
        return f"{value / 1e3:g} k"
    return f"{value:g}" if abs(value) < 1e4 else short(value)


def _line(panel: Panel, number: int, x: Axis, y: Axis) -> Markup:
    """A curve; a noisy one faintly, with its running mean; a dot where it ends."""
    series = panel.series[number]
    kind = "reference" if series.reference else f"s{number}"
    points = thinned(series.drawn)
    parts = []
    if series.drawn is not series.curve:
        parts.append(element("path", d=_path(thinned(series.curve), x, y), class_="raw"))
    numbers = " ".join(f"{step}:{value:.5g}" for step, value in zip(points.steps, points.values, strict=True))
    parts.append(element("path", d=_path(points, x, y), class_="line", data_points=numbers, data_series=number))
    finite = np.flatnonzero(np.isfinite(points.values))
    if len(finite):
        cx, cy = (a.at(v[finite[-1:]])[0] for a, v in ((x, points.steps), (y, points.values)))
        parts.append(element("circle", cx=f"{cx:.1f}", cy=f"{cy:.1f}", r=2.6))
    return element("g", *parts, class_=kind)


def _path(curve: Curve, x: Axis, y: Axis) -> str:
    """Lines from point to point, broken where a value is not finite; one alone is a dot."""
    parts, down = [], False
    for px, py in zip(x.at(curve.steps).tolist(), y.at(curve.values).tolist(), strict=True):
        if math.isfinite(py):
            parts.append(f"L{px:.1f} {py:.1f}" if down else f"M{px:.1f} {py:.1f}h0")
        down = math.isfinite(py)
    return "".join(parts)


def _in_words(panel: Panel) -> str:
    """What a reader who does not see the chart is told of it."""
    return f"{panel.title} by step. " + " ".join(_of_series(series, panel.kind) for series in panel.series)


def _of_series(series: Series, kind: str) -> str:
    finite = np.flatnonzero(np.isfinite(series.curve.values))
    name = f"{series.name}: " if series.name else ""
    if not len(finite):
        return f"{name}no finite value."
    steps, values = series.curve.steps[finite], series.curve.values[finite]
    least, most = shown(float(values.min()), kind), shown(float(values.max()), kind)
    return (
        f"{name}from {shown(float(values[0]), kind)} at step {steps[0]:,} to {shown(float(values[-1]), kind)} at step "
        f"{steps[-1]:,}, between {least} and {most}."
    )
