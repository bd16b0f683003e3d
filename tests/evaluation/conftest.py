"""Tiny random models with their tokenizers, in folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import transformers
from families import tokenizer_of
from harness import WORDS
from tiny import config, randomised

from distil.models.families import FAMILIES

LINES = [" ".join(WORDS[i : i + 12]) for i in range(0, len(WORDS), 7)]
HEADS = {
    "lm": lambda family: FAMILIES[family].model_class,
    "classes": lambda family: getattr(transformers, _base(family) + "ForSequenceClassification"),
    "spans": lambda family: getattr(transformers, _base(family) + "ForQuestionAnswering"),
}


def _base(family: str) -> str:
    return FAMILIES[family].config_class.__name__.removesuffix("Config")


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Folder of a tiny model with a head "lm", "classes" or "spans"; made once for the same wishes. Do not write there."""
    made: dict[str, Path] = {}

    def make(family: str, head: str = "lm", seed: int = 0, **changes: object) -> Path:
        key = repr((family, head, seed, changes))
        if key not in made:
            tokenizer = tokenizer_of(family, LINES)
            ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos")}
            size = {"vocab_size": len(tokenizer)}
            model = randomised(HEADS[head](family)(config(family, **ids | size | changes)), seed)
            made[key] = tmp_path_factory.mktemp(f"{family}-{head}")
            model.save_pretrained(made[key])
            tokenizer.save_pretrained(made[key])
        return made[key]

    return make
