"""Guesses as a person sees them: a table with bars as wide as the terminal, a plain one, a picture."""

from __future__ import annotations

import io
import logging
import os
import unicodedata
import warnings
from collections.abc import Callable, Sequence

from distil.evaluation.guess import Blank, Guesses
from distil.exhibit import Exhibit, Image
from distil.markdown import aligned

FIGURE = 8  # columns of a percentage, 100.00, and of a space on either side
LEAST_BAR, MOST_BAR, LEAST_TOKEN, MOST_TOKEN = 4, 40, 10, 20
EIGHTHS = " \u258f\u258e\u258d\u258c\u258b\u258a\u2589\u2588"


def percent(probability: float) -> str:
    """A probability in per cent, two decimals."""
    return f"{100 * probability:.2f}"


def columns(blank: Blank) -> list[str]:
    """Heads of the plain table."""
    heads = [""]
    for guesses in blank.models:
        heads += [guesses.model, *(f"T = {t:g}, %" for t in blank.temperatures)]
    return heads


def cells(blank: Blank) -> list[list[str]]:
    """The plain table: a line for each rank, and one for all other tokens."""
    ranks = max(len(guesses.top) for guesses in blank.models)
    lines = [[str(rank + 1)] for rank in range(ranks)] + [["rest"]]
    for guesses in blank.models:
        for line, row in zip(lines, _rows(guesses, ranks), strict=True):
            line += [row[0], *map(percent, row[1])] if row else [""] * (1 + len(blank.temperatures))
    return lines


def _rows(guesses: Guesses, ranks: int) -> list[tuple[str, Sequence[float]] | None]:
    """Token and probabilities by rank, None where a vocabulary has ended, and the rest."""
    rows = [(guess.token, guess.probabilities) for guess in guesses.top]
    return [*rows, *[None] * (ranks - len(rows)), (f"{guesses.others:,} more", guesses.rest)]


def plain(blank: Blank) -> str:
    """The table as Markdown."""
    return aligned(columns(blank), [[cell.replace("|", "\\|") for cell in line] for line in cells(blank)])


def barred(blank: Blank, width: int, blocks: bool = True) -> str:
    """The table with bars, ``width`` columns wide: models beside each other if they fit, or one below the other.

    All bars of a blank have one scale. Without ``blocks`` they are made of #.
    """
    whole = max(max(guesses.top[0].probabilities) for guesses in blank.models)
    ranks = max(len(guesses.top) for guesses in blank.models)
    names = ["", *(str(rank + 1) for rank in range(ranks)), "rest"]
    left = len(names[-1])
    share = (width - left) // len(blank.models)
    beside = share - 2 - len(blank.temperatures) * (LEAST_BAR + FIGURE) >= LEAST_TOKEN
    groups = [blank.models] if beside else [(guesses,) for guesses in blank.models]
    tables = []
    for models in groups:
        room = share if beside else width - left
        parts = [
            _block(blank, guesses, ranks, room, lambda p, n: drawn_bar(p / whole, n, blocks)) for guesses in models
        ]
        lines = zip(names, *parts, strict=True)
        tables.append("\n".join((name.rjust(left) + "".join(line)).rstrip() for name, *line in lines))
    return "\n\n".join(tables)


def _block(
    blank: Blank, guesses: Guesses, ranks: int, width: int, drawn: Callable[[float, int], str]
) -> list[str]:  # fmt: skip
    """One model's part, each line ``width`` columns wide; without bars where there is no room for them."""
    count = len(blank.temperatures)
    longest = max(wide(row[0]) for other in blank.models for row in _rows(other, 0) if row)
    token = max(LEAST_TOKEN, min(longest, MOST_TOKEN, width - 2 - count * (LEAST_BAR + FIGURE)))
    bar = max(0, min((width - 2 - token) // count - FIGURE, MOST_BAR))
    heads = "".join(f"T = {t:g}, %".rjust(bar + FIGURE) for t in blank.temperatures)
    lines = [f"  {fitted(guesses.model, token)}{heads}"]
    for i, row in enumerate(_rows(guesses, ranks)):
        line = ""
        if row:
            figures = (f" {drawn(p, bar) if i < ranks else ' ' * bar} {percent(p):>{FIGURE - 2}}" for p in row[1])
            line = f"  {fitted(row[0], token)}{''.join(figures)}"
        lines.append(line)
    return [line + " " * (width - wide(line)) for line in lines]


def drawn_bar(share: float, width: int, blocks: bool = True) -> str:
    """A bar of so many columns, filled to a share of them, by eighths of a column."""
    eighths = min(round(share * width * 8), width * 8)
    if not blocks:
        return ("#" * round(eighths / 8)).ljust(width)
    full, part = divmod(eighths, 8)
    return (EIGHTHS[8] * full + (EIGHTHS[part] if part else "")).ljust(width)


def wide(text: str) -> int:
    """Columns that a text takes in a terminal."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text
    )  # fmt: skip


def fitted(text: str, width: int) -> str:
    """The text in exactly so many columns, its end cut off where it is longer."""
    if wide(text) > width:
        while wide(text) >= width:
            text = text[:-1]
        text += "\u2026"
    return text + " " * (width - wide(text))


def picture(blanks: Sequence[Blank]) -> bytes:
    """A PNG: a row for each blank, a panel for each model, two bars for each guess."""
    # Whatever else the environment names would be looked for, and refused, as matplotlib is imported; and that its
    # cache of fonts has no place is nobody's news.
    os.environ["MPLBACKEND"] = "agg"
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    models, ranks = len(blanks[0].models), max(len(g.top) for blank in blanks for g in blank.models)
    figure = Figure(figsize=(5.2 * models, (1.7 + 0.26 * ranks) * len(blanks)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subfigures(len(blanks), 1, squeeze=False)[:, 0]
    for row, blank in zip(rows, blanks, strict=True):
        row.suptitle("\n".join(_said(blank)), parse_math=False, wrap=True)
        whole = 100 * max(max(guesses.top[0].probabilities) for guesses in blank.models)
        for axes, guesses in zip(row.subplots(1, models, squeeze=False)[0], blank.models, strict=True):
            height = 0.8 / len(blank.temperatures)
            for i, t in enumerate(blank.temperatures):
                places = [rank + (i - (len(blank.temperatures) - 1) / 2) * height for rank in range(len(guesses.top))]
                axes.barh(places, [100 * g.probabilities[i] for g in guesses.top], height, label=f"T = {t:g}")
            axes.set_yticks(range(len(guesses.top)), [guess.token for guess in guesses.top], parse_math=False)
            rest = ", ".join(
                f"{percent(p)} at T = {t:g}" for p, t in zip(guesses.rest, blank.temperatures, strict=True)
            )
            axes.set(title=guesses.model, xlabel=f"probability, %; all others: {rest}")
            axes.set(xlim=(0, 1.05 * whole), ylim=(ranks - 0.4, -0.6))
            axes.spines[["top", "right"]].set_visible(False)
        row.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=9, frameon=False)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # of a script that its fonts lack: a box is drawn
        figure.savefig(out, format="png")
    return out.getvalue()


def _said(blank: Blank) -> list[str]:
    """The text, and who saw less of it."""
    return [blank.text, f"({blank.note})"] if blank.note else [blank.text]


def exhibit(blanks: Sequence[Blank], png: bytes, command: str) -> Exhibit:
    """The guesses for a run's report; of several blanks the first column has the number, then the rank."""
    rows = []
    for number, blank in enumerate(blanks, 1):
        before = f"{number}: " if len(blanks) > 1 else ""
        rows += [(before + rank, *line) for rank, *line in cells(blank)]
    texts = "; ".join(" ".join(_said(blank)) for blank in blanks)
    return Exhibit(
        title="Guesses",
        note=f"{texts} \u2013 the most probable tokens, in per cent; a higher T keeps their order, flatter.",
        columns=tuple(columns(blanks[0])),
        rows=tuple(rows),
        command=command,
        images=(Image(caption=f"What is guessed for: {texts}", png=png),),
    )
