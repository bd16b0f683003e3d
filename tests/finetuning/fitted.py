"""Results of fine-tunings that never were, and their folders."""

from __future__ import annotations

import json
from pathlib import Path

from distil.finetuning.results import TaskResults
from distil.finetuning.suite_folder import Member
from distil.finetuning.suite_options import Suite
from distil.tasks import catalogue


def results(task: str, percent: float, **more: object) -> TaskResults:
    """Results whose score is so many per cent, of a model of 66 M parameters that was trained for a minute."""
    known = catalogue.find(task)
    scores = {split: dict.fromkeys(known.metrics, percent / 100) for split in known.validations}
    values = {
        "task": known.name, "kind": known.kind, "step": 10, "scores": scores, "teacher_scores": {}, "agreement": {},
        "judged": dict.fromkeys(known.validations, 100), "train_examples": 500, "parameters": 66_000_000,
        "teacher_parameters": None, "seconds": 60.0, "from_step": 0, "paper": dict(known.paper),
    } | more  # fmt: skip
    return TaskResults(**values)


def member(suite: Suite, task: str, label: str, seed: int) -> Member:
    """A run of a suite."""
    return Member.of(suite, catalogue.find(task), label, seed)


def leave(one: Member, done: TaskResults, identity: dict | None = None) -> Path:
    """Put results into a run's folder, as a run does."""
    one.folder.mkdir(parents=True, exist_ok=True)
    (one.folder / "run.json").write_text(json.dumps(identity or {}))
    done.write(one.folder)
    return one.folder
