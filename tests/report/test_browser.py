"""The page in a real browser: it fits a phone, says nothing on the console, asks for nothing, and can be pointed at."""

from __future__ import annotations

import pytest
from chromium import pages
from left import PLAN, RESULTS, TEXTS, leave, report
from PIL import Image

from distil.exhibit import Exhibit
from distil.report.page import make

PHONE, DESKTOP = 390, 1280
WIDTHS = """
for (const folded of page.querySelectorAll('details')) folded.open = OPEN;
const root = page.documentElement;
const boxes = [...page.querySelectorAll('.scroll')].filter((box) => box.scrollWidth > box.clientWidth);
const outside = [...page.querySelectorAll('body *')].filter((part) => !part.closest('.scroll, pre'));
const reach = Math.max(...outside.map((part) => part.getBoundingClientRect().right));
return [window.innerWidth, root.scrollWidth, boxes.length, reach, page.querySelectorAll('svg').length];
"""
NAMES = """
const names = [...page.querySelectorAll('.scroll tbody th')];
const size = (name) => parseFloat(window.getComputedStyle(name).fontSize);
const range = (name) => { const all = page.createRange(); all.selectNodeContents(name); return all; };
return names.map((name) => [name.textContent, range(name).getBoundingClientRect().height / size(name)]);
"""
POINT = """
const figure = page.querySelector('.charts figure'), svg = figure.querySelector('svg');
const value = figure.querySelector('[data-value]'), where = figure.querySelector('.where');
const box = svg.getBoundingClientRect(), texts = () => [value.textContent, where.textContent];
const point = (kind, x) => svg.dispatchEvent(new window.PointerEvent(kind, { clientX: x, clientY: box.top + 50 }));
const points = figure.querySelector('[data-points]').dataset.points.split(' ');
const before = texts();
point('pointermove', box.left);
const first = texts();
point('pointermove', box.right);
const last = texts();
point('pointerleave', 0);
return { before, first, last, after: texts(), points: [points[0], points[points.length - 1]] };
"""


@pytest.fixture(scope="module")
def served(real_page, tmp_path_factory):
    """A browser and the page of a real run, whose console stays empty whatever is done with it."""
    folder = tmp_path_factory.mktemp("browser") / "served"
    folder.mkdir()
    (folder / "report.html").write_text(real_page)
    make(long_words(folder.parent / "run"), folder / "long.html")
    with pages(folder) as found:
        yield found
        assert found.console == []
        assert set(found.asked) <= {
            "/frame.html",
            "/report.html",
            "/long.html",
            "/favicon.ico",
        }  # the icon is the browser's own wish


def long_words(folder):
    """A run whose every name is a word that no line of a phone holds."""
    long = "a" * 200
    results = RESULTS | {"rows": [*RESULTS["rows"], {"name": long, long: long}], long: long}
    leave(folder, {"recipe": long, "mathematics": {"data": {"store": [long]}}, long: long}, results)
    texts = TEXTS | {"plan": f"{PLAN}\n  {'long':<16}{long}", "versions": {"device": long, "git": long}, long: long}
    scalars = {f"loss/{long}": float, f"loss_weighted/{long}": float, f"{long}/x": float, f"x/{long}": lambda step: 1.0}
    report(folder, range(1, 4), scalars, texts)
    Exhibit(title=long, note=long, columns=("", long), rows=((long, long),), command=long).write(folder, long)
    return folder


@pytest.mark.parametrize("opened", ["false", "true"])
@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("page", ["report.html", "long.html"])
def test_nothing_is_wider_than_the_screen(served, page, width, opened):
    inner, scroll, in_boxes, reach, charts = served.look(page, width, WIDTHS.replace("OPEN", opened))
    assert inner == width and charts > (2 if page == "long.html" else 10)
    assert scroll <= width and reach <= width
    assert width == DESKTOP or in_boxes >= 1  # the wide table scrolls in a box of its own


def test_names_of_rows_are_not_broken_within_a_word_on_a_phone(served):
    """A line is some 1.5 times as high as its letters: names of short words have as many lines as words at most."""
    rows = served.look("report.html", PHONE, NAMES)
    assert {"teacher", "student before", "student after"} <= {name for name, _ in rows}
    short = [(name, height) for name, height in rows if max(map(len, name.split()), default=0) <= 8]
    assert [row for row in short if row[1] >= 1.9 * len(row[0].split())] == []


def test_a_chart_tells_the_figures_where_one_points(served):
    found = served.look("report.html", DESKTOP, POINT)
    first, last = ([float(number) for number in pair.split(":")] for pair in found["points"])
    assert found["before"] == found["after"] and found["before"][1] == ""
    for (step, value), (said, where) in ((first, found["first"]), (last, found["last"])):
        assert where == f"step {step:.0f}"
        assert float(said) == pytest.approx(value, rel=1e-3)  # four digits are shown


@pytest.mark.parametrize(
    ("width", "dark", "paper", "line"),
    [
        (PHONE, False, (253, 253, 252), (38, 102, 168)), (DESKTOP, False, (253, 253, 252), (38, 102, 168)),
        (DESKTOP, True, (21, 24, 27), (111, 171, 230)),
    ],
)  # fmt: skip
def test_it_is_seen(served, width, dark, paper, line):
    """Paper, cards, text and curves of the colours that page.css has, as far as one screen and a half."""
    image = Image.open(served.screenshot("report.html", width, 3200, dark)).convert("RGB")
    assert image.size == (width, 3200)
    colours = {colour: count for count, colour in image.getcolors(image.width * image.height)}
    assert paper in sorted(colours, key=colours.get)[-2:] and len(colours) > 200
    assert colours[line] > 200  # pixels wholly of a curve's colour


def test_the_console_is_heard(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "bad.html").write_text("<script>nothing.there()</script><p style='width: 900px'>wide</p>")
    with pages(folder) as found:
        assert found.look("bad.html", PHONE, "return page.documentElement.scrollWidth;") > PHONE
        assert "ReferenceError" in found.console[0]
