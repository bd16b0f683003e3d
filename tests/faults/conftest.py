"""The material of the end-to-end tests, for the faults too."""

from __future__ import annotations

import pytest
from harness import Material, make_material


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return make_material(tmp_path_factory.mktemp("material"))
