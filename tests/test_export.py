"""The model card: what it says of a student, and of a model that had no teacher."""

from __future__ import annotations

import json

import pytest

from distil.config import Recipe
from distil.export import write_card
from distil.models.families import FAMILIES


@pytest.mark.parametrize(
    ("recipe", "family", "said"),
    [
        (
            "distilbert-base-uncased", "distilbert",
            ("tags: [distillation, distilbert]", "# distilbert distilled by the recipe distilbert-base-uncased",
             "- teacher: `bert-base-uncased`", "pipeline_tag: fill-mask", "AutoModelForMaskedLM"),
        ),
        (
            "distilgpt2", "gpt2",
            ("tags: [distillation, gpt2]", "- teacher: `gpt2`", "pipeline_tag: text-generation",
             "AutoModelForCausalLM"),
        ),
        (
            "distilbert-base-uncased-teacher-mlm", "bert",
            ("tags: [pretraining, bert]", "# bert trained by the recipe distilbert-base-uncased-teacher-mlm",
             "- initial weights: `bert-base-uncased`", "pipeline_tag: fill-mask"),
        ),
    ],
)  # fmt: skip
def test_a_card_says_what_the_model_is(tmp_path, recipe, family, said):
    loaded = Recipe.load(recipe)
    write_card(tmp_path, loaded, FAMILIES[family], 1234, 5_000_000, "| FIGURES |")
    card = (tmp_path / "README.md").read_text()
    for text in (*said, "1,234 optimiser steps, 5,000,000 tokens", "| FIGURES |"):
        assert text in card
    assert json.loads(card.split("```json")[1].split("```")[0]) == loaded.mathematics()
