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


@pytest.mark.slow
def test_speed_in_all_its_forms_says_nothing_but_its_tables(material, tmp_path):
    """Exporters and engines of other people's talk on both streams, past Python's own."""
    student = ("--model", material.teacher, "--teacher", material.teacher, "--out", tmp_path)
    how = ("--sequences", 6, "--batches", 1, 4, "--threads", 1)
    line = command(None, "speed", *student, *how, program=PROGRAM)
    done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    out = done.stdout.splitlines()
    assert out[:3] == [f"teacher: {material.teacher}", f"student: {material.teacher}", ""]
    rows = [f"{model} {form}" for model in ("teacher", "student") for form in ("fp32", "int8", "onnx", "onnx-int8")]
    names = [text.split("|")[1].strip() for text in out if text.startswith("| ")]
    assert [name for name in names if name in rows] == rows * 2
    notes = [text for text in out[3:] if text and not text.startswith("|")]
    begun = ["6 sequences of random ids", "Of the set's 6 sequences", "all figures: ", *["for the report: "] * 2]
    assert len(notes) == len(begun) and all(map(str.startswith, notes, begun))


def test_a_mistake_is_one_line(material, tmp_path):
    code, shown = on_terminal(80, "guess", "no mask", "--model", material.teacher, "--out", tmp_path / "out")
    assert code == 78 and shown.startswith("error: ") and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()
