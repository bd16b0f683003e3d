"""launch/evaluate.py on a terminal, as a user starts it."""

from __future__ import annotations

import os
import subprocess

import pytest
from harness import ROOT, command, environment

PROGRAM = "launch/evaluate.py"


def on_terminal(columns: int, *arguments: object) -> tuple[int, str]:
    """Exit code, and what a terminal of so many columns shows, errors included."""
    ours, theirs = os.openpty()
    variables = environment() | {"COLUMNS": str(columns)}
    line = command(None, *arguments, program=PROGRAM)
    with subprocess.Popen(line, cwd=ROOT, env=variables, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:  # so Linux says that the other side is closed
                break
            if not part:
                break
            shown += part
    os.close(ours)
    return process.returncode, shown.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [50, 100])
def test_guesses_fit_the_terminal(material, columns):
    code, shown = on_terminal(
        columns, "guess", "ba [MASK] bi", "--model", material.teacher, "--teacher", material.teacher
    )
    assert code == 0 and "ba ____ bi" in shown and "\u2588" in shown
    lines = shown.splitlines()
    assert max(map(len, lines)) <= columns
    assert any("teacher" in line and "student" in line for line in lines) == (columns == 100)


def test_a_mistake_is_one_line(material, tmp_path):
    code, shown = on_terminal(80, "guess", "no mask", "--model", material.teacher, "--out", tmp_path / "out")
    assert code == 78 and shown.startswith("error: ") and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()
