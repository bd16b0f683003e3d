"""The folder of an ablation: which runs are its members, whose it is, and what is kept beside them.

It holds a folder for each run, and two files of ours: each says so in itself, so that no file of a user's is written
over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distil.config import Recipe
from distil.errors import ConfigError, DataError
from distil.folder import write_whole
from distil.job import Job
from distil.rundir import LOCK, RESULTS, RUN, check, unused
from distil.training import STOP
from distil.variants import Variant, named, parts_of

TABLE, NUMBERS = "ablation.md", "ablation.json"
MADE = "made"  # in NUMBERS: run -> when, where and with what it was finished
KIND, OURS = "kind", "ablation by distil"  # in NUMBERS, whose it is
MARK = "<!-- written by launch/ablate.py, which writes it anew -->"  # the same in TABLE
KEPT = {TABLE, NUMBERS, f".{TABLE}", f".{NUMBERS}", STOP, LOCK}
CURVES = "tensorboard", "events.out.tfevents"  # what TensorBoard may have been told to write there
_NAME = re.compile(r"(.+)-seed(\d+)")


@dataclass(frozen=True)
class Member:
    """One run of an ablation."""

    variant: Variant
    seed: int
    folder: Path

    @classmethod
    def of(cls, folder: Path, variant: Variant, seed: int) -> Member:
        """The run of a variant and a seed in the folder of an ablation."""
        return cls(variant, seed, folder / f"{variant.name}-seed{seed}")

    @property
    def recipe(self) -> Recipe:
        """What it trains."""
        return self.variant.with_seed(self.seed)

    def job(self, whole: Job) -> Job:
        """The whole recipe's job under its own recipe: its identity and length, without opening anything anew."""
        return replace(whole, recipe=self.recipe)

    @property
    def measured(self) -> bool:
        """Whether it has results, of whatever length."""
        return (self.folder / RESULTS).exists()


def members_there(folder: Path, whole: Recipe) -> list[Member]:
    """Runs in the folder that are named as those of an ablation of this recipe, in the order of its formula."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        variant = named(whole, match[1]) if match and path.is_dir() else None
        if variant is not None and (one := Member.of(folder, variant, int(match[2]))).folder == path:
            found.append(one)
    parts = parts_of(whole)
    place = {one.folder: [parts.index(part) for part in one.variant.left_out] for one in found}
    return sorted(found, key=lambda one: (len(place[one.folder]), place[one.folder], one.seed))


def refuse_strangers(folder: Path) -> None:
    """Raise ConfigError where the folder holds anything but runs and what an ablation keeps; it may be empty or new."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"output directory {folder} is a file; give another --output_dir")
    if (folder / RUN).exists():
        raise ConfigError(f"output directory {folder} is that of a single run; give another --output_dir")
    remedy = "move it away, or give another --output_dir"
    try:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and path.name != CURVES[0] and not ((path / RUN).exists() or unused(path)):
                raise ConfigError(f"output directory {path} exists and holds no run of ours; {remedy}")
            if not path.is_dir() and path.name not in KEPT and not path.name.startswith(CURVES[1]):
                raise ConfigError(f"output directory {folder} holds {path.name}, which is no ablation's; {remedy}")
        if (folder / TABLE).exists() and MARK not in (folder / TABLE).read_text(encoding="utf-8", errors="replace"):
            raise ConfigError(f"{folder / TABLE} is not of our making; {remedy}")
    except OSError as error:
        raise DataError(f"output directory {folder} cannot be read: {error.strerror}; give another") from error
    read_numbers(folder)


def refuse_others(folder: Path, job: Job) -> None:
    """Raise ConfigError where a run in the folder has a member's name and is not of this whole recipe."""
    for one in members_there(folder, job.recipe):
        check(one.folder, one.job(job))


def free_folder(root: Path, job: Job) -> Path:
    """Default folder of an ablation: that of the same recipe, or else the first name not taken."""
    number = 1
    while True:
        folder = root / (f"ablation-{job.recipe.name}" + (f"-{number}" if number > 1 else ""))
        try:
            refuse_strangers(folder)
            refuse_others(folder, job)
        except ConfigError:
            number += 1
        else:
            return folder


def read_numbers(folder: Path) -> dict[str, Any]:
    """The numbers kept so far. Raises ConfigError where the file is not ours, DataError where it cannot be read."""
    path = folder / NUMBERS
    if not path.exists():
        return {KIND: OURS}
    try:
        numbers = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); move it away, and the same command makes it anew") from error
    if not isinstance(numbers, dict) or numbers.get(KIND) != OURS:
        raise ConfigError(f"{path} is not of our making; move it away, or give another --output_dir")
    made = numbers.get(MADE, {})
    if not isinstance(made, dict) or not all(isinstance(how, dict) for how in made.values()):
        raise DataError(f"{path} cannot be read ({MADE} is no table); move it away, and the same command makes it anew")
    return numbers


def keep(folder: Path, numbers: dict[str, Any], table: str | None = None) -> None:
    """Write the numbers and, where there is one yet, the table. Raises DataError."""
    texts = {NUMBERS: json.dumps(numbers, indent=2) + "\n"}
    if table is not None:
        texts[TABLE] = f"{table}\n{MARK}\n"
    for name, text in texts.items():
        try:
            write_whole(folder / name, text)
        except OSError as error:
            raise DataError(f"{folder / name} cannot be written: {error.strerror}") from error


def members_of(folder: Path, variants: Sequence[Variant], seeds: Sequence[int]) -> list[Member]:
    """All runs of an ablation, by seeds first: after the first round every variant has a figure."""
    return [Member.of(folder, variant, seed) for seed in seeds for variant in variants]
