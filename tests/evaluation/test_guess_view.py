"""Guesses as a table that fits the terminal, as Markdown, as a picture that shows something."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import warnings

import pytest
from PIL import Image

from distil.evaluation.guess import Blank, Guess, Guesses
from distil.evaluation.guess_view import barred, cells, columns, drawn_bar, exhibit, fitted, picture, plain, wide
from distil.exhibit import Exhibit


def guesses(model: str, words: str, first: float = 0.5, others: int = 30_000) -> Guesses:
    chances = [first / 2**i for i in range(len(words.split()))]
    top = tuple(Guess(w, (p, p / 2)) for w, p in zip(words.split(), chances, strict=True))
    return Guesses(model, top, (1 - sum(chances), 1 - sum(chances) / 2), others)


def blank(*models: Guesses, text: str = "a ____.") -> Blank:
    return Blank(text, (1.0, 2.0), models)


PAIR = blank(guesses("teacher", "day life extraordinarily", 0.5), guesses("student", "day \u53cb\u60c5 |", 0.25))
ONE = blank(guesses("model", "\u2423friendship ##ing $x$ \u20ac"))


def test_the_plain_table():
    assert columns(PAIR) == ["", "teacher", "T = 1, %", "T = 2, %", "student", "T = 1, %", "T = 2, %"]
    assert cells(PAIR) == [
        ["1", "day", "50.00", "25.00", "day", "25.00", "12.50"],
        ["2", "life", "25.00", "12.50", "\u53cb\u60c5", "12.50", "6.25"],
        ["3", "extraordinarily", "12.50", "6.25", "|", "6.25", "3.12"],
        ["rest", "30,000 more", "12.50", "56.25", "30,000 more", "56.25", "78.12"],
    ]
    assert "\\|" in plain(PAIR)  # in Markdown a bar would be a column
    assert len({line.count("| ") for line in plain(ONE).splitlines()}) == 1


def test_a_vocabulary_that_ends_leaves_cells_empty():
    rows = cells(blank(guesses("teacher", "a b c"), guesses("student", "a", others=0)))
    assert [row[4:] for row in rows] == [["a", "50.00", "25.00"], [""] * 3, [""] * 3, ["0 more", "50.00", "75.00"]]
    assert barred(blank(guesses("teacher", "a b c"), guesses("student", "a", others=0)), 100)


@pytest.mark.parametrize("width", [50, 75, 76, 80, 100, 133, 250])
@pytest.mark.parametrize("shown", [PAIR, ONE])
def test_the_table_with_bars_is_as_wide_as_the_terminal(shown, width):
    lines = barred(shown, width).splitlines()
    assert max(map(wide, lines)) <= width
    beside = "teacher" in lines[0] and "student" in lines[0]
    assert beside == (shown is PAIR and width >= 76)
    assert len(lines) == (5 if beside else 11 if shown is PAIR else 6)
    if width >= 100:  # a bar of half the length stands for half the probability: both are of whole columns here
        bars = [sum(line.count(c) for c in "\u2588") for line in barred(ONE, width).splitlines()[1:3]]
        assert bars[0] > 0 and abs(bars[0] - 2 * bars[1]) <= 4


def test_a_terminal_without_blocks_gets_ascii_bars():
    text = barred(blank(guesses("model", "a b")), 80, blocks=False)
    assert text.isascii() and "####" in text


def test_a_terminal_without_room_gets_no_bars_and_no_crash():
    assert "50.00" in barred(PAIR, 20)


@pytest.mark.parametrize(
    ("share", "drawn"),
    [
        (0, "    "),
        (1, "\u2588" * 4),
        (0.5, "\u2588\u2588  "),
        (1 / 32, "\u258f   "),
        (0.22, "\u2589   "),
        (2, "\u2588" * 4),
    ],
)
def test_bars_are_drawn_by_eighths(share, drawn):
    assert drawn_bar(share, 4) == drawn


def test_texts_are_fitted_by_the_columns_they_take():
    assert wide("\u53cb\u60c5") == 4 and wide("e\u0301") == 1
    assert fitted("ab", 4) == "ab  " and fitted("abcdef", 4) == "abc\u2026"
    assert fitted("\u53cb\u60c5\u53cb", 4) == "\u53cb\u2026 " and wide(fitted("\u53cb\u60c5\u53cb", 4)) == 4


def ink(png: bytes, box: tuple[float, float, float, float]) -> int:
    """Colours that are no grey, within a part of the picture."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    left, top, right, bottom = box
    part = image.crop(
        (int(left * image.width), int(top * image.height), int(right * image.width), int(bottom * image.height))
    )
    return sum(n for n, colour in part.getcolors(1 << 24) if max(colour) - min(colour) > 60)


def test_the_picture_has_bars_for_both_models():
    png = picture([PAIR])
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG" and image.width > image.height > 100
    left, right = ink(png, (0, 0, 0.5, 0.85)), ink(png, (0.5, 0, 1, 0.85))
    # All bars of a picture have one scale, and the student's are half as long.
    assert left > 1000 and left / right == pytest.approx(2, rel=0.05)


def test_a_picture_of_several_blanks_has_them_one_below_the_other():
    one, two = (Image.open(io.BytesIO(picture([PAIR] * n))) for n in (1, 2))
    assert two.width == one.width and two.height == pytest.approx(2 * one.height, abs=2)
    assert ink(picture([PAIR, PAIR]), (0, 0.5, 1, 1)) > 1000


def test_odd_tokens_are_drawn_as_they_are_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert picture([blank(guesses("$model$", "$x$ \\frac{ \u53cb\u60c5 _a^"), text="${ ____")]).startswith(
            b"\x89PNG"
        )


def test_who_saw_less_is_said_in_picture_and_exhibit():
    told = Blank("a ____ b", (1.0, 2.0), ONE.models, "model saw only: a ____")
    assert "a ____ b (model saw only: a ____) " in exhibit([told], picture([told]), "").note
    assert picture([told]) != picture([Blank("a ____ b", (1.0, 2.0), ONE.models)])


@pytest.mark.parametrize("variables", [{"MPLBACKEND": "nonsense"}, {"MPLCONFIGDIR": "/proc/nowhere"}])
def test_a_picture_needs_nothing_of_the_environment(variables):
    """In a process of its own, since a library reads that once."""
    code = (
        "from distil.evaluation.guess import *; from distil.evaluation.guess_view import picture; import sys\n"
        "blank = Blank('a ____', (1.0,), (Guesses('m', (Guess('b', (0.5,)),), (0.5,), 9),))\n"
        "sys.exit(picture([blank])[:4] != b'\\x89PNG')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ) | variables, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_exhibit_of_a_report(tmp_path):
    made = exhibit([PAIR, PAIR], picture([PAIR, PAIR]), "evaluate.py guess")
    assert Exhibit.read(made.write(tmp_path, "guess")) == made
    assert made.columns == tuple(columns(PAIR)) and len(made.rows) == 8
    assert [row[0] for row in made.rows] == ["1: 1", "1: 2", "1: 3", "1: rest", "2: 1", "2: 2", "2: 3", "2: rest"]
    assert exhibit([ONE], picture([ONE]), "").rows[0][0] == "1" and "a ____." in made.note
