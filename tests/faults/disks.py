"""Full disks: checkpoints, curves and the exported model find no room. Mounting small disks needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from stage import NEWEST, Outcome, Stage


def mount(folder: Path, size: str) -> None:
    """A small disk of its own in a folder's place, with what the folder held."""
    held = folder.with_name(f"{folder.name}.held")
    if folder.exists():
        folder.rename(held)
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    if held.exists():
        shutil.copytree(held, folder, dirs_exist_ok=True)


def unmount(folder: Path) -> None:
    """Take the disk away; what it held stays in the folder."""
    held = folder.with_name(f"{folder.name}.held")
    shutil.rmtree(held, ignore_errors=True)
    shutil.copytree(folder, held)
    subprocess.run(["umount", str(folder)], check=True)
    folder.rmdir()
    held.rename(folder)


def _occupied(folder: Path) -> int:
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in folder.rglob("*") if path.is_file())


def disk_full(stage: Stage) -> Outcome:
    """Room for the two checkpoints that are there and a part of a third."""
    run = stage.copy("disk_full")
    if os.geteuid():
        return Outcome(0, "", "", 0.0)
    there = run / "checkpoints"
    stage.first(lambda: mount(there, str(_occupied(there) + _occupied(there / "latest") + 200 * 1024)))
    outcome = stage.train(run)
    outcome.facts["left"] = sorted(path.name for path in there.iterdir())
    stage.first(lambda: unmount(there))
    return outcome


def disk_freed(stage: Stage) -> Outcome:
    return stage.train(stage.work / "disk_full")


def curves_unwritable(stage: Stage) -> Outcome:
    run = stage.copy("curves_unwritable")
    if os.geteuid():
        return Outcome(0, "", "", 0.0)
    stage.first(lambda: shutil.rmtree(run / "tensorboard"))
    stage.first(lambda: mount(run / "tensorboard", "4k"))
    outcome = stage.train(run)
    stage.first(lambda: unmount(run / "tensorboard"))
    return outcome


def export_unwritable(stage: Stage) -> Outcome:
    """The run's folder is on a disk that has room for checkpoints and curves, but not for a model."""
    run = stage.copy("export_unwritable")
    if os.geteuid():
        return Outcome(0, "", "", 0.0)
    stage.first(lambda: mount(run, str(_occupied(run) + 2**21)))

    def fill() -> None:
        free = shutil.disk_usage(run).free
        (run / "filler").write_bytes(bytes(free - _occupied(run / NEWEST) - 60 * 1024))

    stage.first(lambda: shutil.rmtree(run / "student"))
    stage.first(fill)
    outcome = stage.train(run, 15, "--keep_checkpoints", "3")
    outcome.facts["left"] = [path.name for path in run.iterdir() if "student" in path.name]
    stage.first((run / "filler").unlink)
    stage.first(lambda: unmount(run))
    return outcome


def export_again(stage: Stage) -> Outcome:
    return stage.train(stage.work / "export_unwritable")
