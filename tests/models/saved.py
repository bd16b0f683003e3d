"""Tiny random models with their tokenizers, in folders."""

from __future__ import annotations

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


class Saved:
    """Makes folders of tiny models with a head "lm", "classes" or "spans", once for equal wishes: to be read only."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._made: dict[str, Path] = {}

    def __call__(self, family: str, head: str = "lm", seed: int = 0, **changes: object) -> Path:
        """Folder of such a model; ``changes`` are values of its config."""
        key = repr((family, head, seed, changes))
        if key not in self._made:
            tokenizer = tokenizer_of(family, LINES)
            ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos")}
            size = {"vocab_size": len(tokenizer)}
            model = randomised(HEADS[head](family)(config(family, **ids | size | changes)), seed)
            self._made[key] = self._factory.mktemp(f"{family}-{head}")
            model.save_pretrained(self._made[key])
            tokenizer.save_pretrained(self._made[key])
        return self._made[key]
