"""The page: one file of HTML that asks the network for nothing, and whose policy forbids it to."""

from __future__ import annotations

import base64
import hashlib
import re
from contextlib import suppress
from pathlib import Path

import distil
from distil.errors import DataError
from distil.folder import write_whole
from distil.report import words
from distil.report.curves import curves_part
from distil.report.markup import Markup, element
from distil.report.record import Record, read
from distil.report.tables import exhibits_part, plan_part, results_part, settings_part
from distil.report.tiles import tiles

PAGE = "report.html"
NOT_RECORDED = "What was trained on what is not recorded in its folder."
_HERE = Path(__file__).parent


def make(run: Path, out: Path | None = None) -> Path:
    """Write the page of the run in a folder, by default into it, in place of an earlier one; returns the file.

    Raises DataError where the folder is no run's, something in it is damaged, or the page cannot be written.
    """
    out = run / PAGE if out is None else out
    text = page(read(run))
    try:
        if out.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        write_whole(out, text)
    except OSError as error:
        with suppress(OSError):
            out.with_name(f".{out.name}").unlink()
        raise DataError(f"{out} cannot be written: {error.strerror}; give another file by --out") from error
    return out


def page(record: Record) -> str:
    """The whole file."""
    title = words.title(record)
    place = words.place(record)
    style, script = (Markup((_HERE / name).read_text(encoding="utf-8")) for name in ("page.css", "page.js"))
    policy = f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=f"{policy}; base-uri 'none'; form-action 'none'"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} · {place} – distil"),  # noqa: RUF001
        element("style", style),
    )
    body = element("body", element("main", *_parts(record, title)), _footer(), element("script", script))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _parts(record: Record, title: str) -> list[Markup]:
    state = "" if words.finished(record) else "unfinished"
    when = words.when(record)
    header = element(
        "header",
        element("p", f"distil · report of a {'run' if record.task is None else 'fine-tuning'}", class_="over"),
        element("h1", title),
        element(
            "p", element("b", words.status(record), class_=state or None),
            element("span", f"last report {when}") if when else "", class_="state",
        ),
        element("p", _unbroken(words.lead(record)) or NOT_RECORDED, class_="lead"),
        element("p", words.circumstances(record), class_="note"),
    )  # fmt: skip
    figures = [
        element(
            "div", element("dt", t.name), element("dd", t.value, class_="value"), element("dd", _unbroken(t.against))
        )
        for t in tiles(record)
    ]
    return [
        header, element("dl", *figures, class_="tiles") if figures else Markup(), results_part(record),
        curves_part(record), exhibits_part(record), plan_part(record), settings_part(record),
    ]  # fmt: skip


def _unbroken(text: str) -> str:
    """A text whose figures stay in one line with their signs."""
    return re.sub(r"(?<=\d) (?=[%kM]\b|%)", "\u00a0", text)


def _footer() -> Markup:
    return element(
        "footer", element("p", f"Made by distil {distil.__version__}. Nothing here was loaded from a network.")
    )


def _digest(text: str) -> str:
    """A policy's name for the one style or script that may be used."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
