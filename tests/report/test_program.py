"""launch/report.py and make report, as a user starts them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, environment
from left import leave

from distil.exhibit import Exhibit
from distil.report.page import PAGE


def program(*arguments, **variables):
    """launch/report.py as a user starts it; without a display unless one is given."""
    outside = {k: v for k, v in environment().items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")}
    line = [sys.executable, "launch/report.py", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=outside | variables, capture_output=True, text=True, timeout=60)


def test_the_program_says_where_the_page_is(tmp_path):
    done = program(leave(tmp_path / "run"), "--open")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"report: {tmp_path}/run/report.html\n", "")
    done = program(tmp_path / "run", "--out", tmp_path / "elsewhere.html")
    assert (done.returncode, done.stdout) == (0, f"report: {tmp_path}/elsewhere.html\n")
    assert (tmp_path / "elsewhere.html").read_text() == (tmp_path / "run" / PAGE).read_text()


def test_a_browser_is_shown_the_page_where_there_is_a_display(tmp_path):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >{tmp_path}/shown\n')
    browser.chmod(0o755)
    done = program(leave(tmp_path / "a run"), "--open", DISPLAY=":7", BROWSER=f"{browser} %s")
    assert done.stdout == f"report: {tmp_path}/a run/report.html, shown in your browser\n"
    assert (tmp_path / "shown").read_text().strip() == (tmp_path / "a run" / PAGE).as_uri()


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        (lambda run: None, ["nowhere"], "no folder nowhere; give that of a run"),
        (lambda run: (run / "run.json").unlink(), ["{run}"], "is no run of ours: it has no run.json"),
        (lambda run: (run / "results.json").write_text("[]"), ["{run}"], "it holds no JSON object"),
        (lambda run: None, ["{run}", "--out", "{run}/no/where.html"], "cannot be written: No such file or directory"),
        (lambda run: (run / PAGE).mkdir(), ["{run}"], "cannot be written: it is a folder; give another file by --out"),
        (lambda run: Exhibit(title="t").write(run, "x").write_text("{"), ["{run}"], "x.json cannot be read"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_and_nothing_is_written(tmp_path, spoil, arguments, message):
    run = leave(tmp_path / "run")
    spoil(run)
    before = sorted(tmp_path.rglob("*"))
    done = program(*(argument.format(run=run) for argument in arguments))
    assert (done.returncode, done.stdout) == (65, "")
    assert message in done.stderr and done.stderr.count("\n") == 1 and done.stderr.startswith("error: ")
    assert sorted(tmp_path.rglob("*")) == before


def test_without_a_run_the_options_are_named():
    done = program()
    assert done.returncode == 78 and "RUN_DIR" in done.stderr and done.stderr.count("\n") == 1


def make_report(bin: Path, run: Path) -> list[str]:
    """What ``make report`` starts, with a stand-in for python that says what it was given."""
    bin.mkdir(exist_ok=True)
    (bin / "python").write_text("#!/bin/sh\nprintf '%s|' \"$@\"; echo\n")
    (bin / "python").chmod(0o755)
    line = ["make", "-s", "-o", ".venv/.ready", "report", f"BIN={bin}", f"RUN={run}"]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()


def test_make_report_shows_what_make_run_came_to():
    line = ["make", "-pn", "-o", ".venv/.ready", "report"]
    said = subprocess.run(line, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=True).stdout
    assert re.search(r"^RUN = runs/quickstart$", said, re.MULTILINE)


def test_make_report_evaluates_what_was_not_evaluated_since_it_was_trained(tmp_path):
    run = leave(tmp_path / "a 'run' & more", results=None)
    guess = f"launch/evaluate.py|guess|--run|{run}|"
    speed = f"launch/evaluate.py|speed|--run|{run}|--sequences|100|--batches|32|"
    page_of = f"launch/report.py|{run}|--open|"
    (run / "student").mkdir()
    assert make_report(tmp_path / "bin", run) == [page_of]  # it is not finished
    leave(run)
    assert make_report(tmp_path / "bin", run) == [guess, speed, page_of]
    paths = [Exhibit(title=name).write(run, name) for name in ("guess", "speed")]
    assert make_report(tmp_path / "bin", run) == [page_of]
    os.utime(paths[0], (1, 1))
    assert make_report(tmp_path / "bin", run) == [guess, page_of]
    (run / "student").rmdir()
    assert make_report(tmp_path / "bin", run) == [page_of]  # a fine-tuning's model, which guesses no words
