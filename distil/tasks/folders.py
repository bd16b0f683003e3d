"""Folders that hold a task: GLUE's and IMDb's as unpacked, SQuAD's, and any with a file or several for each split."""

from __future__ import annotations

from pathlib import Path

from distil.errors import ConfigError, DataError
from distil.tasks.columns import SUFFIXES, Columns, read_columns
from distil.tasks.glue_folder import glue_file, read_glue
from distil.tasks.squad_file import read_squad, squad_file
from distil.tasks.task import Task

_WORDS = {"validation": ("validation", "valid", "val", "dev")}


def folder_columns(task: Task, split: str, folder: Path) -> Columns:
    """A split of the task in the folder. Raises DataError where it is not there, with what is looked for."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name one that holds {task.name}")
    layout = task.source.get("layout")
    if layout == "glue" and (path := glue_file(task, folder, split)):
        return read_glue(task, path)
    if layout == "imdb" and (of_split := _reviews(folder, split)):
        return _read_reviews(of_split)
    if layout == "squad" and (path := squad_file(folder, split, task.source["folder"])):
        found = read_squad(path)
        if found is None:
            raise DataError(f"{path}: not as SQuAD's files are; fetch it anew")
        return found
    return _joined([read_columns(path) for path in _split_files(task, split, folder)])


def _split_files(task: Task, split: str, folder: Path) -> list[Path]:
    """Files of a split: ``train.csv``, or several, ``train-00000-of-00002.parquet``, as the hub has them."""
    places = [folder / part for part in ("", task.source.get("config", ""), task.name, "data", "plain_text")]
    words = _WORDS.get(split, (split, split.replace("validation", "dev")))
    for place in dict.fromkeys(places):
        for word in dict.fromkeys(words):
            found = [path for path in sorted(place.glob(f"{word}.*")) if path.suffix.lower() in SUFFIXES]
            if len(found) > 1:
                raise DataError(f"{place}: {found[0].name} and {found[1].name} both hold {split}; leave one")
            found = found or sorted(place.glob(f"{word}-*-of-*.parquet"))
            if found:
                return found
    kinds = {"glue": f" or GLUE's {task.source.get('folder')}/", "imdb": f" or IMDb's {split}/pos/ and {split}/neg/"}
    known = kinds.get(task.source.get("layout", ""), "")
    raise DataError(f"{folder}: holds no {split}.csv, .tsv, .jsonl or .parquet{known}")


def _joined(parts: list[Columns]) -> Columns:
    first = parts[0]
    if len(parts) == 1:
        return first
    for part in parts[1:]:
        if part.values.keys() != first.values.keys():
            raise ConfigError(f"{part.name}: its columns are not those of {first.name}")
    values = {name: [value for part in parts for value in part.values[name]] for name in first.values}
    return Columns(f"{first.name} and {len(parts) - 1} more", values, sum(part.count for part in parts))


def _reviews(folder: Path, split: str) -> Path | None:
    """IMDb's folder of a split, with a folder for each class, as ``aclImdb_v1.tar.gz`` unpacks."""
    return next((p for p in (folder / split, folder / "aclImdb" / split) if (p / "pos").is_dir()), None)


def _read_reviews(folder: Path) -> Columns:
    values: dict[str, list[str]] = {"text": [], "label": []}
    for label in ("neg", "pos"):
        for path in sorted((folder / label).glob("*.txt")):
            try:
                values["text"].append(path.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise DataError(f"{path}: cannot be read as UTF-8 text; fetch it anew") from error
            values["label"].append(label)
    return Columns(str(folder), values, len(values["text"]))
