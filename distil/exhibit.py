"""What an evaluation leaves for a run's report: a table in words, perhaps images, as RUN_DIR/evaluations/NAME.json.

The report shows all of them in the order of their names, so a name may begin with a number to find its place.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from distil.errors import ConfigError, DataError
from distil.folder import write_whole

FOLDER = "evaluations"
PNG = b"\x89PNG\r\n\x1a\n"  # what a PNG file begins with
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, kw_only=True)
class Image:
    """A PNG file's bytes and the words under it, which also stand for it where it is not seen."""

    caption: str
    png: bytes


@dataclass(frozen=True, kw_only=True)
class Exhibit:
    """A table as a person reads it: cells are texts, the first column names the row; nothing is computed from it.

    ``note`` is a sentence or two on how to read it, ``command`` the command line that makes it again.
    """

    title: str
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    note: str = ""
    command: str = ""
    images: tuple[Image, ...] = ()

    def __post_init__(self) -> None:
        widths = {len(row) for row in self.rows} - {len(self.columns)}
        if widths:
            raise DataError(f"table {self.title!r} has {len(self.columns)} columns and a row of {min(widths)} cells")
        if not all(image.png.startswith(PNG) for image in self.images):
            raise DataError(f"an image of {self.title!r} is no PNG file")

    def write(self, run: Path, name: str) -> Path:
        """Put it in a run's folder under a name of lower-case letters, digits, - and _, in place of an earlier one.

        Returns the file. Raises ConfigError for another name, DataError where it cannot be written.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"{name!r} names no evaluation: give lower-case letters, digits, - and _")
        path = run / FOLDER / f"{name}.json"
        try:
            path.parent.mkdir(exist_ok=True)
            write_whole(path, json.dumps(self._values(), indent=2, ensure_ascii=False) + "\n")
        except OSError as error:
            raise DataError(f"{path} cannot be written: {error.strerror}") from error
        return path

    def _values(self) -> dict[str, Any]:
        values = {"title": self.title, "note": self.note, "columns": self.columns, "rows": self.rows}
        values |= {"command": self.command}
        if self.images:
            values["images"] = [
                {"caption": image.caption, "png": base64.b64encode(image.png).decode()} for image in self.images
            ]
        return values

    @classmethod
    def read(cls, path: Path) -> Self:
        """What ``write`` wrote. Raises DataError where the file is damaged."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                title=_text(values["title"]),
                columns=_texts(values["columns"]),
                rows=tuple(_texts(row) for row in _list(values["rows"])),
                note=_text(values.get("note", "")),
                command=_text(values.get("command", "")),
                images=tuple(
                    Image(caption=_text(image["caption"]), png=base64.b64decode(_text(image["png"]), validate=True))
                    for image in _list(values.get("images", []))
                ),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} cannot be read ({error}); remove it, or evaluate again") from error


def remove(run: Path, name: str) -> None:
    """Take it out of a run's folder, if it is there. Raises DataError where that cannot be done."""
    path = run / FOLDER / f"{name}.json"
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(f"{path} cannot be removed: {error.strerror}") from error


def figures_file(run: Path, name: str) -> Path:
    """Where all figures of an evaluation lie that a table has rounded; no report shows them."""
    return run / FOLDER / "figures" / f"{name}.json"


def older_than(run: Path, file: Path) -> frozenset[str]:
    """Names of the evaluations of a run's folder that were left before a file of it; none where that is not there."""
    if not file.exists():
        return frozenset()
    then = file.stat().st_mtime_ns
    return frozenset(path.stem for path in _files(run) if path.stat().st_mtime_ns < then)


def read_all(run: Path) -> dict[str, Exhibit]:
    """{name: what an evaluation left} of a run's folder, by name; empty without any. Raises DataError for damage."""
    return {path.stem: Exhibit.read(path) for path in _files(run)}


def _files(run: Path) -> list[Path]:
    return sorted((run / FOLDER).glob("[a-z0-9]*.json"))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_text(item) for item in _list(value))
