"""HTML and SVG built of elements, so that what comes from a file is text on the page and never markup."""

from __future__ import annotations

import html
from collections.abc import Iterable

VOID = {"meta", "link", "img", "br", "hr", "col"}  # HTML's elements without an end
_DRAWN = {"path", "line", "circle", "rect"}  # SVG's, which may close themselves


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def escaped(text: object) -> Markup:
    """Text as markup that shows it; what UTF-8 has no bytes for (a lone surrogate) becomes a question mark."""
    return text if isinstance(text, Markup) else Markup(html.escape(str(text).encode("utf-8", "replace").decode()))


def joined(parts: Iterable[object], between: str = "") -> Markup:
    """Several pieces one after the other, escaped where they are not markup."""
    return Markup(escaped(between).join(escaped(part) for part in parts))


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """An element; of attributes ``_`` at the end is dropped and stands for ``-`` elsewhere, None leaves one out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items() if value is not None
    )  # fmt: skip
    if name in VOID:
        return Markup(f"<{name}{written}>")
    if name in _DRAWN and not children:
        return Markup(f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{joined(children)}</{name}>")
