"""What the runs of a suite have not alike, though a table compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distil.finetuning.results import TaskResults
from distil.finetuning.suite_folder import Member
from distil.made import COMPARED, seeds_in_words
from distil.rundir import RUN


def warnings(runs: Mapping[Member, TaskResults], made: Mapping[Member, Mapping[str, Any]]) -> list[str]:
    """A line for each kind of unlikeness; ``made`` says how each run was made, as far as that is known."""
    found = _missing(list(runs))
    for name in dict.fromkeys(one.task.name for one in runs):
        of_task = {one: results for one, results in runs.items() if one.task.name == name}
        told = {one: f"judged on {_listed(results.judged)}" for one, results in of_task.items()}
        found += _unlike(f"runs of {name}", told)
        found += _unlike(f"runs of {name}", {one: f"trained on {r.train_examples:,}" for one, r in of_task.items()})
        for label in dict.fromkeys(one.label for one in of_task):
            steps = {one: f"{r.step:,} steps" for one, r in of_task.items() if one.label == label}
            found += _unlike(f"runs of {name}, {label}", steps)
    for label in dict.fromkeys(one.label for one in runs):
        found += _unlike(f"runs of {label}", {one: _settings(one) for one in runs if one.label == label})
    for key in COMPARED:
        found += _unlike("runs", {one: f"{key} {how[key]}" for one, how in made.items() if key in how})
    return found


def _missing(runs: Sequence[Member]) -> list[str]:
    """Of which models there are fewer seeds than of others, or none where there is another task's."""
    seeds = sorted({one.seed for one in runs})
    labels, tasks = (
        list(dict.fromkeys(values)) for values in zip(*((o.label, o.task.name) for o in runs), strict=True)
    )
    lacking: list[str] = []
    for task in tasks:
        for label in labels:
            there = {one.seed for one in runs if (one.task.name, one.label) == (task, label)}
            if absent := [seed for seed in seeds if seed not in there]:
                lacking.append(f"{task}, {label}: {seeds_in_words(absent)}")
    return [f"warning: not all runs are there: {'; '.join(lacking)}"] if lacking else []


def _settings(one: Member) -> str:
    """What sets runs of a label apart from those of others, as a run keeps it: its loss, and a cut student's shape."""
    numbers = one.notes(RUN).get("fine-tuning", {})
    values = {**numbers.get("loss", {}), **numbers.get("student", {})}
    return " ".join(f"{name} {value}" for name, value in values.items())


def _unlike(what: str, told: Mapping[Member, str]) -> list[str]:
    """A line where not all of them say the same: what most say, and who says something else."""
    kinds: dict[str, list[Member]] = {}
    for one, text in told.items():
        kinds.setdefault(text, []).append(one)
    if len(kinds) < 2:
        return []
    usual = max(kinds, key=lambda text: len(kinds[text]))
    others = [f"{text}: {_named(those)}" for text, those in kinds.items() if text != usual]
    return [f"warning: {what} are not made alike: {usual}, but {'; '.join(others)}"]


def _named(members: Sequence[Member]) -> str:
    titles = [one.title for one in members]
    return " and ".join(titles[:3]) + (f" and {len(titles) - 3} more" if len(titles) > 3 else "")


def _listed(judged: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} of {split}" for split, count in judged.items())
