"""One real run, tiny, whose page is looked at by several tests."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import make_material, must_pretrain
from left import leave_evaluations

from distil.report.page import make


@pytest.fixture(scope="session")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the tiny recipe, with two evaluations."""
    folder = tmp_path_factory.mktemp("report")
    material = make_material(folder / "material")
    run = folder / "run"
    must_pretrain(None, "--recipe", material.recipe, "--output_dir", run, "--max_steps", 48, "--precision", "fp32")
    leave_evaluations(run)
    return run


@pytest.fixture(scope="session")
def real_page(real_run: Path) -> str:
    """Its page."""
    return make(real_run).read_text(encoding="utf-8")
