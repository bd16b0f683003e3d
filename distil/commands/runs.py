"""What a run left and who taught in it, read from its folder."""

from __future__ import annotations

import json
from pathlib import Path

from distil.config import Recipe
from distil.data.samples import PREFIX
from distil.errors import DataError
from distil.folder import prepared
from distil.models.loading import load_config, weights_fingerprint
from distil.prepare import FROM_RECIPE, fitted
from distil.rundir import MODEL, RUN, STUDENT
from distil.tables import Loss


def export_of(run: Path) -> str:
    """Folder of the model that a run has exported. Raises DataError where it has not yet."""
    for name in (STUDENT, MODEL):
        if (run / name / "config.json").is_file():
            return str(run / name)
    raise DataError(f"{run} has exported no model yet; the command that it was started by finishes it")


def teacher_of(run: Path) -> str | None:
    """Folder or hub name of a pretraining run's teacher; None where it was on labels alone.

    None of a fine-tuning, too, which does not say where it lay.

    Raises DataError where the teacher is not there any more, or has other weights now.
    """
    try:
        then = json.loads((run / RUN).read_text())
        if "fine-tuning" in then:
            return None
        numbers = then["mathematics"]
        if not Loss(**numbers["loss"]).needs_teacher:
            return None  # it gave the initial weights at most
        stated, weights = numbers["model"]["teacher"], then["teacher"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{run / RUN} cannot be read ({error}); is the folder a run of ours?") from error
    name = stated
    if stated.startswith(PREFIX):
        name = str(prepared() / stated.removeprefix(PREFIX))
    elif stated.startswith(FROM_RECIPE):
        name = str(fitted(Recipe.load(stated.removeprefix(FROM_RECIPE))) / STUDENT)
    remedy = f"so the teacher of {run} is not known; give --teacher DIR_OR_NAME"
    try:
        now = weights_fingerprint(name, load_config(name))
    except DataError as error:
        raise DataError(f"{error}; {remedy}") from error
    if now != weights:
        raise DataError(f"{name} has other weights now, {remedy}")
    return name
