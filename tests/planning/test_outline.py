"""What is planned, of what is here and of what is not."""

from __future__ import annotations

import numpy as np
import pytest
from planned import ROOT, outlined
from stores import build

from distil.config import Recipe
from distil.errors import DataError
from distil.placement import place
from distil.planning.architectures import PUBLISHED, published
from distil.planning.outline import outline


def recipe_of(**changes: object) -> Recipe:
    return Recipe.load("distilbert-base-uncased", changes)


def outline_of(recipe: Recipe, tokens: float | None = None):
    return outline(recipe, place(ROOT / "ds_config/zero1.json", recipe, 8, "cuda", ("fp16",), "auto"), tokens)


def test_the_published_job_needs_neither_model_nor_text():
    job = outline_of(recipe_of())
    assert job.tokens == pytest.approx(3 * 3.5e9, rel=1e-3)
    assert job.steps == -(-3 * 3_500_000_000 // (4096 * 512))
    assert job.rows[0].lengths == [512] * 8 and job.rows[0].predicted == -(-4096 * 15 // 100)
    assert len(job.notes) == 3 and all("not here" in note or "assumed" in note for note in job.notes)


def test_tokens_that_are_told_are_taken():
    assert outline_of(recipe_of(), 1e9).tokens == pytest.approx(3e9, rel=1e-3)
    assert outlined(steps=10).steps == 10


def test_a_causal_model_predicts_all_but_the_last_of_a_sequence():
    recipe = Recipe.load("distilgpt2")
    job = outline_of(recipe, 1e9)
    assert job.rows[0].predicted == 4 * 1024 - 4


def test_what_cannot_be_known_is_asked_for():
    with pytest.raises(DataError, match="--tokens"):
        outline_of(Recipe.load("distilroberta-base"))
    with pytest.raises(DataError, match="config.json"):
        outline_of(recipe_of(teacher="nobody/nothing"), 1e9)


def test_a_published_size_is_that_of_the_recipes_own_text():
    with pytest.raises(DataError, match="nonexistent is not here.*--tokens"):
        outline_of(recipe_of(store=("/nonexistent",)))
    with pytest.raises(DataError, match="no store fits"):
        outline_of(recipe_of(store=("nonexistent*",)))


def test_where_steps_are_given_the_size_of_the_text_is_not_asked_for():
    job = outline_of(recipe_of(store=("/nonexistent",), steps=10))
    assert job.tokens_an_epoch is None and job.tokens == 10 * 4096 * 512
    assert "store /nonexistent is not here: as many steps as are given" in job.notes


def test_a_store_that_is_here_is_looked_at(folder_of, tmp_path):
    build(tmp_path / "store", [np.full(12, 7)] * 40 + [np.full(7, 8)] * 40)
    found = {"teacher": str(folder_of("bert")), "store": (str(tmp_path / "store"),), "student_layers": (0, 1)}
    job = outline_of(recipe_of(**found, max_length=16, batch_size=8))
    assert job.tokens_an_epoch == 40 * 19 and job.mixture is not None and job.notes == ()
    assert set(sum((list(rows.lengths) for rows in job.rows), [])) <= {7, 12}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_are_those_of_their_families(name):
    config = published(name)
    assert config.num_hidden_layers in (6, 12) and published(f"{name}@main").to_dict() == config.to_dict()


def test_parameters_of_published_models():
    """As their cards and papers have them: 110 M, 125 M and 124 M."""
    from distil.planning.memory import parameters_of

    found = {name: round(parameters_of(published(name)) / 1e6) for name in ("bert-base-cased", "roberta-base", "gpt2")}
    assert found == {"bert-base-cased": 108, "roberta-base": 125, "gpt2": 124}


def test_an_unknown_name_has_no_published_shape():
    assert published("bert-base") is None
