"""The folder of a run: whether it can be written as checkpoints are, and whether they will fit."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import torch

from distil.config import Recipe
from distil.data import samples
from distil.doctor.finding import FAIL, OK, WARN, Finding, within
from distil.errors import ConfigError, DataError, one_line
from distil.folder import prepared, standing
from distil.models.families import family_of
from distil.models.loading import load_config
from distil.models.shape import shape_of, student_config
from distil.prepare import FROM_RECIPE

SECONDS = 30
# fp32 weights and Adam's two moments.
BYTES_A_PARAMETER = 12
# Of a student as wide as BERT-base, for teachers that cannot be looked at: embeddings and head; each layer; layers.
ESTIMATED, ESTIMATED_A_LAYER, ESTIMATED_LAYERS = 24_500_000, 7_100_000, 12


def examine(output_dir: str, recipe: Recipe) -> Iterator[Finding]:
    """Whether ``output_dir`` can be written, and holds the checkpoints that the recipe keeps."""
    try:
        folder = within(SECONDS, lambda: standing(Path(output_dir)))
    except OSError as error:
        remedy = "see whether its file system is there, or give another --output_dir"
        yield Finding(FAIL, "output folder", f"{output_dir}: {error.strerror or one_line(error)}", remedy)
        return
    yield _writable(folder, output_dir)
    yield _room(folder, recipe)


def _writable(folder: Path, output_dir: str) -> Finding:
    name = f".doctor-{uuid.uuid4().hex}"

    def write() -> None:
        draft, whole = folder / f"{name}.draft", folder / name
        try:
            with draft.open("w") as file:
                file.write(name)
                file.flush()
                os.fsync(file.fileno())
            draft.rename(whole)
            if whole.read_text() != name:
                raise OSError("what was written does not come back")
        finally:
            for path in (draft, whole):
                path.unlink(missing_ok=True)

    try:
        within(SECONDS, write)
    except OSError as error:
        return Finding(
            FAIL, "output folder", f"{output_dir} cannot be written: {error.strerror or one_line(error)}",
            "see to its owner and its file system, or give another --output_dir",
        )  # fmt: skip
    return Finding(OK, "output folder", f"{output_dir} can be written, in {folder}")


def _room(folder: Path, recipe: Recipe) -> Finding:
    try:
        parameters, why = _parameters(recipe)
    except ConfigError as error:
        return Finding(FAIL, "student", f"{recipe.name} has none of this teacher", one_line(error))
    checkpoints = recipe.run.keep_checkpoints + 1
    needed = checkpoints * BYTES_A_PARAMETER * parameters
    try:
        free = within(SECONDS, lambda: shutil.disk_usage(folder).free)
    except OSError as error:
        return Finding(
            FAIL, "disk", f"{folder} does not tell its free space: {one_line(error)}", "another --output_dir"
        )
    found = (
        f"{free / 1e9:.1f} GB free; {checkpoints} checkpoints of {parameters / 1e6:.1f} M parameters "
        f"({recipe.name}{why}) take {needed / 1e9:.1f} GB"
    )
    if free < needed:
        return Finding(FAIL, "disk", found, "make room, lower keep_checkpoints, or give another --output_dir")
    if why:
        return Finding(WARN, "disk", found, f"teacher {recipe.model.teacher} cannot be read here")
    return Finding(OK, "disk", found)


def _parameters(recipe: Recipe) -> tuple[int, str]:
    """How many the student has, and why that is an estimate, where it is one.

    Raises ConfigError where the teacher is here, and of another kind than the recipe's student.
    """
    model = recipe.model
    try:
        config = within(SECONDS, lambda: load_config(_teacher(recipe)))
        student = student_config(config, shape_of(config, model))
        with torch.device("meta"):
            return sum(p.numel() for p in family_of(student).model_class(student).parameters()), ""
    except (DataError, TimeoutError):
        layers = len(model.student_layers) or model.student_depth or ESTIMATED_LAYERS
        return ESTIMATED + ESTIMATED_A_LAYER * layers, ", taken to be as wide as BERT-base"


def _teacher(recipe: Recipe) -> str:
    """A model of the shape of the recipe's teacher; built-in material as far as it has been prepared."""
    name = recipe.model.teacher
    if name.startswith(FROM_RECIPE):
        return _teacher(Recipe.load(name.removeprefix(FROM_RECIPE)))
    return str(prepared() / name.removeprefix(samples.PREFIX)) if name.startswith(samples.PREFIX) else name
