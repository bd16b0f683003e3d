"""Where the models of a finished run came from."""

from __future__ import annotations

from pathlib import Path

from distil.config import Recipe
from distil.data import samples
from distil.errors import DataError
from distil.folder import prepared
from distil.models.loading import load_config, weights_fingerprint
from distil.prepare import FROM_RECIPE, fitted
from distil.rundir import RUN, STUDENT, read_identity


def teacher_of(folder: Path) -> str | None:
    """Folder or hub name of a run's teacher, if it is there still; None where it is not, or has other weights now.

    Raises DataError where ``folder`` is no run.
    """
    then = read_identity(folder)
    try:
        name, weights = then["mathematics"]["model"]["teacher"], then["teacher"]
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / RUN} says nothing of a teacher; is the folder a run of ours?") from error
    if name.startswith(samples.PREFIX):
        name = str(prepared() / name.removeprefix(samples.PREFIX))
    elif name.startswith(FROM_RECIPE):
        name = str(fitted(Recipe.load(name.removeprefix(FROM_RECIPE))) / STUDENT)
    try:
        return name if weights_fingerprint(name, load_config(name)) == weights else None
    except DataError:
        return None
