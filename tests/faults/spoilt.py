"""launch/pretrain.py with a fault in it: ``spoilt.py WHAT RANK STEP [arguments of launch/pretrain.py]``."""

from __future__ import annotations

import os
import runpy
import signal
import sys
import time
from pathlib import Path


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def spoil(what: str, step: int) -> None:
    """Put the fault into this rank's run."""
    from distil.checkpoint import folder, saving, tensors
    from distil.stepping import Stepper

    take, write, rename = Stepper.step, tensors.write, Path.rename

    def spoilt_step(steps: Stepper) -> object:
        if steps.at.step == step:
            if what == "raise":
                raise ZeroDivisionError("an injected fault")
            if what == "hang":
                time.sleep(3600)
        return take(steps)

    def spoilt_write(path: Path, values: dict) -> object:
        if int(path.parent.name.removeprefix(".step-").removesuffix(".draft")) < step:
            return write(path, values)
        write(path, values)
        os.truncate(path, path.stat().st_size // 2)
        time.sleep(1)  # whatever others write meanwhile is there
        return die()

    def spoilt_rename(path: Path, target: Path) -> Path:
        if what == "die before rename" and path.suffix == ".draft" and int(target.name[5:]) >= step:
            die()
        return rename(path, target)

    Stepper.step = spoilt_step
    Path.rename = spoilt_rename
    if what == "die writing":
        saving.tensors.write = spoilt_write
    assert folder.publish and what in ("raise", "hang", "die writing", "die before rename")


if __name__ == "__main__":
    mine, what, rank, step, *rest = sys.argv[1:]  # the launcher puts --local_rank first
    if rank in ("all", os.environ["RANK"]):
        spoil(what, int(step))
    sys.argv = ["launch/pretrain.py", mine, *rest]
    runpy.run_path("launch/pretrain.py", run_name="__main__")
