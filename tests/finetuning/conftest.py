"""One rank in this process, and tiny models and sets for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import make_teacher

from distil.engine.ranks import Ranks, start_ranks, stop_ranks


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    """This process as the only rank; the launcher's variables do not outlive it."""
    before = dict(os.environ)
    yield start_ranks()
    stop_ranks()
    os.environ.clear()
    os.environ |= before


@pytest.fixture(scope="session")
def language_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 4 layers with its masked-LM head and tokenizer."""
    return make_teacher(tmp_path_factory.mktemp("models") / "bert")
