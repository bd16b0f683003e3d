"""Which checkpoints are whole, and that a kill at any write leaves a whole one."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from distil.checkpoint import folder, tensors
from distil.checkpoint.manifest import MANIFEST, FileEntry, Manifest, Position
from distil.errors import DataError

KEEP = 2
RANKS = 2


def manifest(step: int, files: dict | None = None) -> Manifest:
    return Manifest(Position(step, 4 * step, 500 * step), RANKS, 1, "fp32", {"recipe": "r"}, {}, {}, files or {})


def save(root: Path, step: int) -> None:
    """As ``Checkpoints`` does it, both ranks' halves in one process."""
    draft = folder.draft_of(root, step)
    draft.mkdir(parents=True, exist_ok=True)
    files = {}
    for rank in range(RANKS):
        values = {("fp32", "w", 8 * rank): torch.full((8,), float(step))}
        files[tensors.file_name(rank)] = tensors.write(draft / tensors.file_name(rank), values)
    folder.publish(root, manifest(step, files), KEEP)


def killed_at(number: int, root: Path, step: int) -> bool:
    """Save in a process that is killed instead of making the ``number``-th change to the disk; whether it was."""
    child = os.fork()
    if child == 0:
        count = 0

        def counted(name: str) -> None:
            real = getattr(os, name)

            def call(*args: object, **kwargs: object) -> object:
                nonlocal count
                count += 1
                if count == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            setattr(os, name, call)

        for name in ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir", "open"):
            counted(name)
        save(root, step)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def test_killed_at_every_write_a_whole_checkpoint_is_found(tmp_path, one_thread):
    # 18 with safetensors 0.8: folder, two files (fsync each), manifest, names, latest, and an old one's removal.
    number, newer = 0, 0
    killed = True
    while killed:
        number += 1
        root = tmp_path / str(number)
        for step in (5, 10):
            save(root, step)
        killed = killed_at(number, root, 15)
        name, told = folder.newest_verified(root)
        assert name in ("step-00000010", "step-00000015") and told == [], (number, name, told)
        newer += name == "step-00000015"
        for left in folder.names(root):  # whatever bears a checkpoint's name is one
            Manifest.read(root / left).verify(root / left)
        folder.clean(root)
        save(root, 15)
        assert folder.names(root) == ["step-00000010", "step-00000015"]
        assert sorted(path.name for path in root.iterdir()) == ["latest", "step-00000010", "step-00000015"]
        shutil.rmtree(root)
    assert number > 12 and 2 < newer < number, "kills fell before and after the moment at which it becomes one"


def test_killed_while_the_same_step_is_saved_anew(tmp_path, one_thread):
    number, killed = 0, True
    while killed:
        number += 1
        root = tmp_path / str(number)
        for step in (5, 10):
            save(root, step)
        killed = killed_at(number, root, 10)
        name, _ = folder.newest_verified(root)
        assert name in ("step-00000005", "step-00000010")
        for left in folder.names(root):
            Manifest.read(root / left).verify(root / left)


def test_a_file_that_rank_0_does_not_see_is_no_checkpoint(tmp_path):
    """Hosts that do not share the folder: what other ranks wrote is elsewhere."""
    save(tmp_path, 5)
    draft = folder.draft_of(tmp_path, 10)
    draft.mkdir()
    files = {"rank-00000.safetensors": FileEntry(3, "00")}
    with pytest.raises(OSError, match="do all hosts share this folder"):
        folder.publish(tmp_path, manifest(10, files), KEEP)
    assert folder.names(tmp_path) == ["step-00000005"]


def test_the_newest_is_never_deleted(tmp_path):
    for step in (5, 10, 15, 20):
        save(tmp_path, step)
        assert folder.names(tmp_path)[-1] == folder.name_of(step)
        assert (tmp_path / folder.LATEST).read_text() == folder.name_of(step) + "\n"
    assert folder.names(tmp_path) == ["step-00000015", "step-00000020"]


def test_names_are_those_of_whole_ones_in_order_of_steps(tmp_path):
    assert folder.names(tmp_path / "absent") == [] and folder.newest_verified(tmp_path / "absent") == (None, [])
    for name in (
        "step-100000000",
        "step-00000009",
        ".step-00000030.draft",
        "damaged-step-00000040",
        "step-7",
        "latest",
    ):
        (tmp_path / name).mkdir()
    assert folder.names(tmp_path) == ["step-00000009", "step-100000000"]


def test_damage_is_told_and_set_aside(tmp_path):
    for step in (5, 10):
        save(tmp_path, step)
    (tmp_path / "damaged-step-00000010").mkdir()  # of an earlier time
    (tmp_path / "step-00000010" / MANIFEST).write_text("{")
    name, (line,) = folder.newest_verified(tmp_path)
    assert name == "step-00000005"
    assert "manifest.json: cannot be read" in line and "it is now damaged-step-00000010-1" in line
    assert (tmp_path / "damaged-step-00000010-1").is_dir()
    assert folder.newest_verified(tmp_path) == ("step-00000005", [])  # latest points to it now
    (tmp_path / "step-00000005" / tensors.file_name(1)).unlink()
    with pytest.raises(DataError, match=r"rank-00001.safetensors: cannot be read .*begin again from step 0"):
        folder.newest_verified(tmp_path)
    assert folder.names(tmp_path) == ["step-00000005"], "where none is left, nothing is renamed"


def test_an_older_save_of_the_same_step_is_replaced(tmp_path):
    save(tmp_path, 5)
    (tmp_path / "step-00000005" / "stray").touch()
    save(tmp_path, 5)
    assert not (tmp_path / "step-00000005" / "stray").exists()
