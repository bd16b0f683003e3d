"""One rank in this process, and tiny models and sets for it."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import WORDS, make_teacher

from distil.engine.ranks import Ranks, start_ranks, stop_ranks

A_WORDS, OTHERS = [word for word in WORDS if "a" in word], [word for word in WORDS if "a" not in word]


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


def reviews(count: int, seed: int) -> list[tuple[str, str]]:
    """Texts of words with an a, which are good, and of others, which are bad."""
    rng = random.Random(seed)
    labels = [rng.choice(("good", "bad")) for _ in range(count)]
    return [(" ".join(rng.choices(A_WORDS if x == "good" else OTHERS, k=rng.randint(3, 12))), x) for x in labels]


@pytest.fixture
def csv(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows of text and label as a CSV file."""

    def write(name: str, rows: list[tuple[str, str]], header: str = "text,label") -> Path:
        path = tmp_path / name
        path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
        return path

    return write
