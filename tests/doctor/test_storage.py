"""Whether a run's folder can be written and holds its checkpoints."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from distil.config import Recipe
from distil.doctor import storage
from distil.doctor.finding import FAIL, OK, WARN, within
from distil.doctor.storage import examine


@pytest.fixture
def recipe(material):
    return Recipe.load(str(material.recipe))


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    from harness import make_material

    return make_material(tmp_path_factory.mktemp("material"))


def test_a_folder_that_is_yet_to_be_made(tmp_path, recipe):
    writable, room = examine(str(tmp_path / "a" / "b"), recipe)
    assert writable.state == OK and str(tmp_path) in writable.found
    # 3 checkpoints of the student with 2 layers of the tiny teacher
    assert room.state == OK and "3 checkpoints of 0.0 M parameters (tiny) take 0.0 GB" in room.found
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_fails_and_says_why(tmp_path, recipe):
    (tmp_path / "file").touch()
    for folder in ("/proc/runs", f"{tmp_path}/file/runs"):
        writable, _ = examine(folder, recipe)
        assert writable.state == FAIL and folder in writable.found and "--output_dir" in writable.remedy


ON_A_SMALL_DISK = """
import subprocess, sys
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", sys.argv[1]], check=True)
from distil.config import Recipe
from distil.doctor.storage import examine
_, room = examine(sys.argv[1], Recipe.load("distilbert-base-uncased", {"teacher": sys.argv[1] + "/none"}))
print(room)
"""


def test_a_disk_too_small_for_the_checkpoints_fails(tmp_path):
    # Mounts of its own, which go with the process, however it ends.
    apart = ["unshare", "--mount"]
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("no mounts of one's own: unshare --mount needs root")
    command = [*apart, sys.executable, "-c", ON_A_SMALL_DISK, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(FAIL) and "keep_checkpoints" in done.stdout
    assert "0.0 GB free; 3 checkpoints of 67.1 M parameters" in done.stdout


def test_a_teacher_that_is_not_here_is_estimated(tmp_path):
    _, room = examine(str(tmp_path), Recipe.load("distilbert-base-uncased", {"teacher": str(tmp_path / "none")}))
    assert room.state == WARN and "as wide as BERT-base" in room.found and "take 2.4 GB" in room.found


def test_a_teacher_that_the_recipe_has_no_student_of(tmp_path, material):
    _, finding = examine(str(tmp_path), Recipe.load("distilgpt2", {"teacher": str(material.teacher)}))
    assert (finding.state, finding.name) == (FAIL, "student")
    assert "student gpt2: it predicts the next token, the teacher, a bert, masked tokens; give --" in str(finding)


def test_a_folder_on_a_disk_that_has_gone_is_a_finding(monkeypatch, recipe):
    monkeypatch.setattr(storage, "SECONDS", 0.2)
    monkeypatch.setattr(storage, "standing", lambda _: time.sleep(5))
    (finding,) = examine("/gone/run", recipe)
    assert finding.state == FAIL and "/gone/run: not done within 0.2 s" in finding.found


def test_a_disk_that_has_gone_does_not_hold_us_up(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opened for reading it blocks, as files of a dead server do
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="0.2 s"):
        within(0.2, Path(tmp_path / "pipe").read_text)
    assert time.monotonic() - began < 5
    with (tmp_path / "pipe").open("w"):
        pass
