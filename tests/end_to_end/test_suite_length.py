"""A suite that is made shorter than its schedule, and then as long as that."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from suites import arguments, make_material, suite


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Path:
    return make_material(tmp_path_factory.mktemp("suite"))


def test_a_run_that_goes_on_says_how_it_was_made_last(material, tmp_path):
    line = arguments(material, tmp_path / "out", tasks="sst2", steps=4)
    assert "2 of 2 runs" in (suite(None, *line, "--max_steps", "2").stdout + (tmp_path / "out/suite.md").read_text())
    made = tmp_path / "out" / "sst2" / "student-seed1" / "made.json"
    assert json.loads(made.read_text())["ranks"] == 1
    printed = suite(2, *line).stdout
    assert "  0 of 2 runs are done in" in printed and "resuming from" in printed
    assert json.loads(made.read_text())["ranks"] == 2 and json.loads(made.read_text())["total_steps"] == 4
    said = made.read_text()
    suite(None, *line)
    assert made.read_text() == said  # nothing was made


def test_what_was_taught_by_a_shorter_run_is_not_made_longer(material, tmp_path):
    line = arguments(material, tmp_path / "out", tasks="sst2", steps=4, ways="second")
    suite(None, *line, "--max_steps", "2")
    for more in (["--max_steps", "3"], ["--dry_run"]):
        refused = suite(None, *line, *more, code=78)
        assert refused.stdout == "" and refused.stderr.count("\n") == 1
        assert "give --max_steps 2 again, or another --output_dir" in refused.stderr
    assert "  2 of 2 runs are done in" in suite(None, *line, "--max_steps", "2").stdout
