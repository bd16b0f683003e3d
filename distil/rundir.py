"""The folder of a run: whose it is, whether it is finished, and which one is free."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distil.errors import ConfigError, DataError
from distil.job import Job
from distil.results import RESULTS, Results

RUN = "run.json"
DRAFT = f".{RUN}"


def check(folder: Path, job: Job) -> None:
    """Raise ConfigError where ``folder`` holds anything but this very run; nothing is written."""
    if (folder / RUN).exists():
        difference = _difference(_read(folder / RUN), job.identity())
        if difference:
            raise ConfigError(
                f"output directory {folder} holds another run ({difference}); give the same options to resume it, "
                "or another --output_dir"
            )
    elif folder.exists() and (not folder.is_dir() or any(path.name != DRAFT for path in folder.iterdir())):
        raise ConfigError(f"output directory {folder} exists and holds no run of ours; give another --output_dir")


def claim(folder: Path, job: Job) -> None:
    """Make ``folder`` this job's. Raises ConfigError as ``check`` does, DataError where it cannot be written."""
    check(folder, job)
    if (folder / RUN).exists():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / DRAFT).write_text(json.dumps(job.identity(), indent=2) + "\n")
        (folder / DRAFT).rename(folder / RUN)
    except OSError as error:
        raise DataError(f"output directory {folder} cannot be written: {error.strerror}") from error


def finished(folder: Path, job: Job) -> Results | None:
    """The results of a run that has already reached the job's last step."""
    results = Results.read(folder) if (folder / RESULTS).exists() else None
    return results if results is not None and results.step >= job.stop_step else None


def free_folder(root: Path, job: Job) -> Path:
    """Default folder of a job: its unfinished run if there is one, or else the first name not taken."""
    number = 1
    while True:
        folder = root / (job.recipe.name if number == 1 else f"{job.recipe.name}-{number}")
        if not folder.exists():
            return folder
        same = (folder / RUN).exists() and not _difference(_read(folder / RUN), job.identity())
        if same and finished(folder, job) is None:
            return folder
        number += 1


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); is the folder a run of ours?") from error


def _difference(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The first few fields that differ, as 'field: then -> now'."""
    then_flat, now_flat = _flat(then), _flat(now)
    # Where a store lies is no part of the experiment: its fingerprint tells whether it is the same.
    names = sorted((then_flat.keys() | now_flat.keys()) - {"mathematics.data.store"})
    rows = [
        f"{name.removeprefix('mathematics.')}: {then_flat.get(name)} there, {now_flat.get(name)} here"
        for name in names
        if then_flat.get(name) != now_flat.get(name)
    ]
    return "; ".join(rows[:4]) + (f"; and {len(rows) - 4} more" if len(rows) > 4 else "")


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {name: tree}
    return {k: v for key, value in tree.items() for k, v in _flat(value, f"{name}.{key}".lstrip(".")).items()}
