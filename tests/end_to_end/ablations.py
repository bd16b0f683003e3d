"""Runs of an ablation that write their folders and results and train nothing."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distil import ablation
from distil.config import Recipe
from distil.errors import Stopped
from distil.results import Results, Row
from distil.variants import AblationOptions, variants

RECIPE = Recipe.load("distilbert-base-uncased", {"seed": 7})
STEPS = 20


@dataclass(frozen=True)
class FakeJob:
    """What an ablation asks of a job."""

    recipe: Recipe
    heldout: tuple[str, ...] = ("text",)
    stop_step: int = STEPS
    precision: str = "fp32"
    micro_batches: int = 4
    mixture: Any = field(default_factory=lambda: SimpleNamespace(micro_batches=40, tokens_an_epoch=1000.0))

    @property
    def placement(self) -> Any:
        """Its precision, and where that is from."""
        return SimpleNamespace(
            precision=self.precision, path="ds.json", notes=(f"a note: running in {self.precision}",)
        )

    def identity(self) -> dict[str, Any]:
        """As a run's folder keeps it."""
        return {"mathematics": self.recipe.mathematics()}


class OneRank:
    """The only one."""

    first, world, device = True, 1, torch.device("cpu")

    def first_does(self, work: Callable[[], Any]) -> Any:
        """Here and now."""
        return work()


class FakeGuard:
    """Nobody asks."""

    def pass_on(self, ranks: OneRank) -> None:
        """Nothing is to be passed on."""

    def stopped_by(self, *files: Path) -> FakeGuard:
        """By none."""
        return self


class Stand:
    """A folder, the runs that have been asked for in it, and how many may end before a stop is asked.

    ``step`` is where runs end, ``job`` what their jobs are but for the recipe.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.trained, self.allowed, self.step = folder, [], 100, STEPS
        self.job: dict[str, Any] = {}
        self.predicted = 99
        together = lambda *how: contextlib.nullcontext((OneRank(), FakeGuard()))
        monkeypatch.setattr(ablation, "together", together)
        monkeypatch.setattr(ablation, "settled", lambda options, recipe, *_, told: FakeJob(recipe, **self.job))
        monkeypatch.setattr(ablation, "describe", lambda job: f"  the plan in {job.precision}")
        monkeypatch.setattr(ablation, "say_loss_path", lambda ranks: None)
        monkeypatch.setattr(ablation, "run", self.run)

    def run(self, options: AblationOptions, recipe: Recipe, *others: object, **more: object) -> Results:
        """In place of a real run: the worse without CE, the better with a later seed."""
        if len(self.trained) == self.allowed:
            raise Stopped("asked")
        folder = Path(options.output_dir)
        self.trained.append(folder.name)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(FakeJob(recipe).identity()))
        accuracy = 0.4 + 0.01 * (recipe.optimizer.seed - 7) - (0.03 if recipe.loss.alpha_ce == 0 else 0)
        results = Results(self.step, self.predicted, (Row("student after", accuracy, 10.0, 0.5, 1, 1.0),))
        results.write(folder)
        return results

    def ablate(self, without: str | None = "ce", seeds: int = 2, recipe: Recipe = RECIPE, **more: Any) -> None:
        """As the program does with these options."""
        more = {"output_dir": str(self.folder)} | more
        options = AblationOptions(without=without, seeds=seeds, **more)
        ablation.ablate(options, variants(recipe, without), None, f"launch/ablate.py --without {without}")

    def written(self) -> str:
        """The table as it is in the folder."""
        return (self.folder / "ablation.md").read_text(encoding="utf-8")

    def numbers(self) -> dict[str, Any]:
        """All numbers in the folder."""
        return json.loads((self.folder / "ablation.json").read_text())
