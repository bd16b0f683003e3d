"""What ships is what was published, and says how to run it on what and what to expect."""

from __future__ import annotations

import re

import pytest

from distil.config import GROUPS, RECIPES, Recipe, shipped_recipes


def test_every_shipped_recipe_loads():
    names = shipped_recipes()
    assert {"distilbert-base-uncased", "quickstart", "quickstart-teacher"} <= set(names)
    for name in names:
        assert Recipe.load(name).name == name


def test_distilbert_base_uncased_is_the_papers_recipe():
    # arXiv 1910.01108, section 3 and 4, and the defaults and README of its public training code.
    recipe = Recipe.load("distilbert-base-uncased")
    assert recipe.mathematics() == {
        "model": {
            "teacher": "bert-base-uncased", "tokenizer": "", "student": "distilbert", "student_depth": 0,
            "student_layers": [0, 2, 4, 7, 9, 11], "student_hidden": 0, "student_heads": 0, "student_feed_forward": 0,
            "initial_weights": "teacher", "dropout": 0.1,
        },
        "loss": {
            "temperature": 2.0, "alpha_ce": 5.0, "alpha_mlm": 2.0, "alpha_cos": 1.0, "alpha_clm": 0.0,
            "alpha_mse": 0.0, "alpha_hidden": 0.0, "hidden_layers": [], "alpha_relations": 0.0, "relation_heads": 48,
            "relation_layer": -1, "kd_until": 1.0, "restrict_ce_to_mask": False, "normalize": "global",
        },
        "masking": {"mlm_fraction": 0.15, "mask_share": 0.8, "keep_share": 0.1, "mlm_smoothing": 0.7},
        "data": {
            "store": ["data/wiki-books"], "max_length": 512, "batch_size": 4096, "micro_batch_size": 8,
            "sampling_exponent": 1.0,
        },
        "optimizer": {
            "lr": 5e-4, "adam_beta1": 0.9, "adam_beta2": 0.98, "adam_eps": 1e-6, "weight_decay": 0.0,
            "warmup_fraction": 0.05, "max_grad_norm": 5.0, "epochs": 3, "steps": 0, "seed": 56,
        },
    }  # fmt: skip


# Of each published recipe what differs from distilbert-base-uncased; sources stand in the recipes' heads.
PUBLISHED = {
    "distilbert-base-cased": {"teacher": "bert-base-cased", "store": ("data/wiki-books-cased",)},
    "distilbert-base-multilingual-cased": {
        "teacher": "bert-base-multilingual-cased", "store": ("data/wikipedia/*",), "sampling_exponent": 0.7,
    },
    "distilroberta-base": {"teacher": "roberta-base", "student": "roberta", "store": ("data/openwebtext-roberta",)},
    "distilgpt2": {
        "teacher": "gpt2", "student": "gpt2", "student_depth": 6, "student_layers": (),
        "store": ("data/openwebtext-gpt2",), "alpha_mlm": 0.0, "alpha_clm": 2.0,
        "mlm_fraction": 0.0, "mask_share": 0.0, "keep_share": 0.0, "mlm_smoothing": 0.0, "max_length": 1024,
        "batch_size": 2048, "micro_batch_size": 4,
    },
}  # fmt: skip


def fields(recipe: Recipe) -> dict[str, object]:
    return {name: value for table in GROUPS for name, value in vars(getattr(recipe, table)).items()}


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_says_how_to_run_it_on_what_and_what_to_expect(name):
    head = (RECIPES / f"{name}.toml").read_text().split("\n\n")[0]
    assert re.search(r"#   (deepspeed launch/pretrain.py|sbatch slurm/pretrain_8xv100.sh) ", head)
    programs = re.findall(r"^# +(.*)launch/\w+\.py", head, re.MULTILINE)
    assert all(before in ("python ", "deepspeed ") for before in programs)  # none is executable by itself
    assert re.search(r"(Corpus|Text): ", head) or "Encoder: " in head
    assert "To expect: " in head


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_family_follows_distilbert(name):
    plain, found = fields(Recipe.load("distilbert-base-uncased")), fields(Recipe.load(name))
    assert {field: value for field, value in found.items() if value != plain[field]} == PUBLISHED[name]


@pytest.mark.parametrize("name", [n for n in shipped_recipes() if "-teacher" in n])
def test_a_teachers_recipe_trains_the_whole_teacher_on_labels_alone(name):
    recipe = Recipe.load(name)
    assert recipe.model.student == "same" and not recipe.model.student_depth and not recipe.model.student_layers
    assert not recipe.loss.needs_teacher and (recipe.loss.alpha_mlm > 0) == (recipe.masking.mlm_fraction > 0)
    assert (recipe.loss.alpha_clm > 0) == name.endswith("-clm")
