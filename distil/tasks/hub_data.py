"""Splits of data sets on the Hugging Face hub."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from distil.errors import ConfigError, DataError, one_line
from distil.tasks.columns import Columns
from distil.tasks.task import SPANS, Task

if TYPE_CHECKING:
    from datasets import Dataset


def hub_columns(task: Task, split: str) -> Columns:
    """A split, downloaded or out of the local cache. Raises DataError where it is not to be had."""
    if "hub" not in task.source:
        raise ConfigError(f"task {task.name} is not on the hub; name its files or its folder")
    import datasets

    # Their logs would repeat what the DataError says in one line.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    name = task.source["hub"]
    try:
        found = datasets.load_dataset(name, task.source.get("config"), split=split)
    except Exception as error:  # noqa: BLE001 - each way to the hub fails in its own way
        reason = f"{type(error).__name__}: {one_line(error)}"[:200]
        raise DataError(f"{name}, {split}: not to be had ({reason}); name a folder that holds {task.name}") from error
    return columns_of(task, found, " ".join(filter(None, (name, task.source.get("config"), split))))


def columns_of(task: Task, found: Dataset, name: str) -> Columns:
    """The task's columns of a data set."""
    wanted = [*task.columns, task.label, *(["id"] if task.kind == SPANS and "id" in found.column_names else [])]
    table = found.with_format("arrow")[:]
    values = {column: table.column(column).to_pylist() for column in found.column_names if column in wanted}
    return Columns(name, values, found.num_rows)
