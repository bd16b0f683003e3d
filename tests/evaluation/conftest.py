"""Fixtures of the tests of distil.evaluation."""

from __future__ import annotations

import pytest
from saved import Saved


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(tmp_path_factory)
