"""What the tests of the batch scripts submit, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cluster import Cluster
from harness import Material, environment

STEPS = 440


@dataclass(frozen=True)
class Site:
    """A cluster, a checkout to submit from, the material, and what an uninterrupted run on two ranks made of it."""

    cluster: Cluster
    checkout: Path
    material: Material
    whole: Path

    def arguments(self, out: Path, steps: int = STEPS, save_every: int = 5) -> list[object]:
        """launch/pretrain.py's, of the run that all tests repeat."""
        size = ("--epochs", 20, "--eval_every", 40, "--save_every", save_every, "--max_steps", steps)
        return ["--recipe", self.material.recipe, "--output_dir", out, *size]

    def submit(
        self, script: str, options: list[object], arguments: list[object], log: Path,
        folder: Path | None = None, **variables: str,
    ) -> str:  # fmt: skip
        """Submit a script from the checkout or another folder; the job's output is appended to a log."""
        settings = {**environment(), **variables, "SLURM_CONF": str(self.cluster.configuration)}
        return self.cluster.submit(script, [*options, f"--output={log}"], arguments, folder or self.checkout, settings)
