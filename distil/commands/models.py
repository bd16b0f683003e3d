"""Which models a command is about: --model and --teacher, or a run's own by --run; and where it writes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from distil.errors import ConfigError, DataError
from distil.folder import standing


def add(parser: argparse.ArgumentParser) -> None:
    """The options."""
    models = parser.add_argument_group("models, by --run or --model")
    models.add_argument("--run", metavar="RUN_DIR", help="a run: its student, its teacher, and its folder for --out")
    models.add_argument("--model", metavar="DIR_OR_NAME", help="the student, or any model, of a folder or of the hub")
    models.add_argument("--teacher", metavar="DIR_OR_NAME", help="what stands beside it")
    parser.add_argument(
        "--out", metavar="DIR", help="a run's folder, say: evaluations/ in it gets what a report of the run shows"
    )


def check(chosen: argparse.Namespace) -> None:
    """Raise what can be refused before anything is loaded: ConfigError, or DataError for where it is to write."""
    if not (chosen.run or chosen.model):
        raise ConfigError("give --run RUN_DIR or --model DIR_OR_NAME; --help lists the options")
    if chosen.run and not (Path(chosen.run) / "run.json").is_file():
        raise DataError(f"{chosen.run} holds no run.json, so it is no run; give its folder, or --model DIR_OR_NAME")
    chosen.out = chosen.out or chosen.run
    if chosen.out:
        refuse_unwritable(Path(chosen.out), folder=True)


def refuse_unwritable(path: Path, folder: bool = False) -> None:
    """Raise DataError where a file, or a folder of files, cannot be written; nothing is left there."""
    there = standing(path if folder else path.parent)
    if path.is_dir() and not folder:
        raise DataError(f"{path} is a folder; name a file")
    if not there.is_dir():
        raise DataError(f"{path} cannot be written: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise DataError(f"{path} cannot be written: no permission to write in {there}")


def named(chosen: argparse.Namespace) -> list[tuple[str, str]]:
    """Title and folder or hub name of each model, the teacher first if there is one. Raises DataError."""
    from distil.origin import teacher_of
    from distil.rundir import STUDENT

    model, teacher = chosen.model, chosen.teacher
    if chosen.run:
        model = model or str(Path(chosen.run) / STUDENT)
        teacher = teacher or teacher_of(Path(chosen.run))
        if teacher is None:
            raise DataError(
                f"the teacher of {chosen.run} is not where it was, or is another now; give --teacher DIR_OR_NAME"
            )
    return [("teacher", teacher), ("student", model)] if teacher else [("model", model)]
