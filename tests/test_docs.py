"""The documents name what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "benchmarks").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_nothing_is_left_to_fill_in(document):
    assert re.findall(r"@[A-Z0-9]+@|TODO|FIXME", document.read_text()) == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_every_fault_has_its_tests():
    """Each row names files of tests and, after a colon, parts of the names of tests in them."""
    rows = [line for line in (ROOT / "docs" / "reliability.md").read_text().splitlines() if re.match(r"\| \d", line)]
    assert [int(row.split("|")[1]) for row in rows] == list(range(1, 26))
    for row in rows:
        cell = row.split("|")[4]
        found = re.findall(r"`([\w/]+\.py)`(?:: ([^`;(]*))?", cell)
        assert found, row
        for name, tests in found:
            paths = [path for path in (ROOT / "tests" / name, ROOT / "tests" / "faults" / name) if path.exists()]
            assert paths, f"{name} is not there"
            for part in re.findall(r"\w*_\w*", tests):
                assert re.search(rf"^def test_\w*{part}", paths[0].read_text(), re.MULTILINE), f"{name} has no {part}"
