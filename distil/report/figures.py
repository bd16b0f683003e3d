"""Figures as a person reads them."""

from __future__ import annotations

import math

SHARE, NUMBER, COUNT = "share", "number", "count"  # kinds of figures
NOTHING = "–"  # noqa: RUF001 - where nothing was measured
_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def shown(value: object, kind: str = NUMBER) -> str:
    """A figure of its kind: a share as per cent, a count in full, a number with four digits; other values as text."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if kind == SHARE:
        return f"{100 * value:.1f} %" if value == 0 or abs(value) >= 5e-4 else f"{100 * value:.2g} %"
    if kind == COUNT and float(value).is_integer():
        return f"{value:,.0f}"
    return short(value)


def short(value: float) -> str:
    """A number in four digits at most: 9.283, 17.42 M, 6e-4."""
    size = abs(value)
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if size >= 1e4:
        for unit, name in _LARGE:
            if size >= unit:
                return f"{value / unit:.3g} {name}" if size < 1e15 else f"{value:.3g}"
    if size < 1e-3:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return f"{value:,.0f}" if size >= 1000 else f"{value:.4g}"


def millions(count: float) -> str:
    """Parameters: 17.4 M, or 31.4 k of a model for tests."""
    return f"{count / 1e6:,.1f} M" if count >= 1e5 else f"{count / 1e3:.1f} k"


def duration(seconds: float) -> str:
    """How long something took, in the two largest units."""
    seconds = round(seconds)
    for unit, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit:
            return f"{seconds // unit} {name} {seconds % unit // part} {part_name}"
    return f"{seconds} s"


def of_tag(tag: str) -> str:
    """The kind of figure that a TensorBoard tag or a field has, by its name."""
    name = tag.rpartition("/")[2]
    if any(word in name for word in ("accuracy", "agreement", "fraction", "share", "retention", "exact_match")):
        return SHARE
    if name in ("tokens", "bad_steps", "spikes", "skipped_steps", "step", "predicted", "parameters"):
        return COUNT
    return NUMBER
