"""``evaluate.py guess``: what teacher and student guess for a masked word."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from distil.commands import models
from distil.errors import DataError

TEXT = "I think this is the beginning of a beautiful [MASK]."  # after Casablanca's last line, as the paper's figure
HELP = "the most probable words for a [MASK], teacher beside student, at T = 1 and 2"


def add(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "text", nargs="?", default=TEXT, metavar="TEXT",
        help="with [MASK] where a word is to be guessed, once or several times; causal models guess the next one",
    )  # fmt: skip
    models.add(parser)
    parser.add_argument("--top", metavar="N", type=int, default=20, help="how many guesses")
    parser.add_argument("--png", metavar="FILE", help="also as a picture")


def run(chosen: argparse.Namespace, command: str) -> None:
    """Guess, print, and write what was asked for. Raises ConfigError and DataError."""
    models.check(chosen)
    if chosen.png:
        models.refuse_unwritable(Path(chosen.png))
    from distil.evaluation import guess_view
    from distil.evaluation.guess import Guesser, guess

    blanks = guess([Guesser.load(*name) for name in models.named(chosen)], chosen.text, chosen.top)
    for blank in blanks:
        note = f"\n({blank.note})" if blank.note else ""
        print(f"{blank.text}{note}\n\n{_table(blank)}\n")
    if not (chosen.png or chosen.out):
        return
    png = guess_view.picture(blanks)
    if chosen.png:
        _write(Path(chosen.png), png)
        print(f"picture: {chosen.png}")
    if chosen.out:
        exhibit = guess_view.exhibit(blanks, png, command)
        print(f"for the report: {exhibit.write(models.made(chosen.out), 'guess')}")


def _table(blank: object) -> str:
    """With bars on a terminal, plain for a file or another program."""
    from distil.evaluation import guess_view

    if not sys.stdout.isatty():
        return guess_view.plain(blank)
    try:
        guess_view.EIGHTHS.encode(sys.stdout.encoding)
        blocks = True
    except UnicodeEncodeError:
        blocks = False
    return guess_view.barred(blank, shutil.get_terminal_size().columns, blocks)


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error.strerror}") from error
