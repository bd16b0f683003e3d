"""What an ablation trains: names, formulas, recipes, and every mistake in one line before anything runs."""

from __future__ import annotations

import pytest

from distil.config import Recipe
from distil.errors import ConfigError
from distil.variants import named, parse, staying, variants

RECIPE = "distilbert-base-uncased"
CAUSAL = {"alpha_mlm": 0.0, "alpha_clm": 2.0, "mlm_fraction": 0.0}


def recipe(**overrides: object) -> Recipe:
    return Recipe.load(RECIPE, overrides)


def test_the_papers_table():
    """Sanh et al. 2019, arXiv 1910.01108, Table 4."""
    assert [(v.formula, v.paper) for v in variants(recipe(), "ce,cos,mlm,init")] == [
        ("L_ce - L_cos - L_mlm", 0.0),
        ("\u2205 - L_cos - L_mlm", -2.96),
        ("L_ce - \u2205 - L_mlm", -1.46),
        ("L_ce - L_cos - \u2205", -0.31),
        ("L_ce - L_cos - L_mlm + random initial weights", -3.69),
    ]


def test_all_parts_are_left_out_by_default():
    assert variants(recipe()) == variants(recipe(), "ce,cos,mlm,init")
    assert staying(recipe()) == ""


@pytest.mark.parametrize(
    ("whole", "names", "said"),
    [
        (Recipe.load("quickstart-teacher"), ["full", "without-init"], "mlm is not left out: it leaves no term"),
        (
            recipe(kd_until=0.6),
            ["full", "without-ce", "without-cos", "without-init"],
            "mlm is not left out: kd_until is 0.6, but without alpha_mlm or alpha_clm nothing goes on then; give "
            "--kd_until 1",
        ),
    ],
)
def test_by_default_what_cannot_be_left_out_stays_and_is_told(whole, names, said):
    assert [v.name for v in variants(whole)] == names
    assert staying(whole).startswith(said) and "\n" not in staying(whole)


def test_a_variant_by_its_name():
    for variant in variants(recipe(), "ce,cos+mlm,init"):
        assert named(recipe(), variant.name) == variant
    for other in ("without-mse", "without-mlm+cos", "without-", "ce", "full-", "without-ce,cos"):
        assert named(recipe(), other) is None


@pytest.mark.parametrize(
    ("without", "name", "changed"),
    [
        ("ce", "without-ce", {"alpha_ce": 0.0}),
        ("cos+ce", "without-ce+cos", {"alpha_ce": 0.0, "alpha_cos": 0.0}),  # the name does not hang on the order
        (" init + mlm ", "without-mlm+init", {"alpha_mlm": 0.0, "initial_weights": "random"}),
        ("init", "without-init", {"initial_weights": "random"}),
    ],
)
def test_a_variant_is_the_recipe_with_these_overrides(without, name, changed):
    whole, variant = variants(recipe(steps=9), without)
    assert (whole.name, whole.left_out, whole.recipe) == ("full", (), recipe(steps=9))
    assert variant.name == name and variant.recipe == recipe(steps=9, **changed)
    assert variant.with_seed(57) == recipe(steps=9, seed=57, **changed)


def test_several_parts_at_once_have_no_figure_in_the_paper():
    _, variant = variants(recipe(), "ce+init")
    assert variant.formula == "\u2205 - L_cos - L_mlm + random initial weights" and variant.paper is None


def test_another_loss_is_written_as_it_is_and_compares_with_no_paper():
    found = variants(recipe(**CAUSAL, alpha_mse=0.5, alpha_hidden=1.0), "clm,hidden")
    assert [(v.formula, v.paper) for v in found] == [
        ("L_ce - L_cos - L_clm - L_mse - L_hidden", None),
        ("L_ce - L_cos - \u2205 - L_mse - L_hidden", None),
        ("L_ce - L_cos - L_clm - L_mse - \u2205", None),
    ]


@pytest.mark.parametrize(
    ("without", "overrides", "said"),
    [
        ("cso", {}, ("--without cso", "did you mean cos?", "ce, cos, mlm, init")),
        ("mse", {}, ("--without mse", "alpha_mse is 0 already", "ce, cos, mlm, init")),
        ("mlm", CAUSAL, ("--without mlm", "alpha_mlm is 0 already", "ce, cos, clm, init")),
        ("ce,,mlm", {}, ("--without ce,,mlm: a part is empty", "ce, cos, mlm, init")),
        ("ce, cos+", {}, ("--without 'ce, cos+': a part is empty",)),
        ("", {}, ("--without '': a part is empty",)),
        ("full", {}, ("--without full", "no such part")),
        ("ce+ce", {}, ("--without ce+ce", "twice")),
        ("ce+cos,cos+ce", {}, ("ce+cos is there twice",)),
        ("ce+cos+mlm", {}, ("--without ce+cos+mlm: it leaves no term", "ce, cos, mlm, init")),
        ("cos", {"alpha_ce": 0.0, "alpha_mlm": 0.0}, ("--without cos", "leaves no term")),
        ("init", {"initial_weights": "random"}, ("--without init", "random weights already")),
        ("mlm", {"kd_until": 0.5}, ("--without mlm: kd_until is 0.5", "give --kd_until 1;")),
    ],
)
def test_a_mistake_is_one_line_that_names_it(without, overrides, said):
    with pytest.raises(ConfigError) as caught:
        variants(recipe(**overrides), without)
    for text in said:
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_line():
    options, found = parse(
        ["--recipe", RECIPE, "--without", "ce", "--seeds", "5", "--steps", "7", "--lr=1e-3", "--output_dir", "o"], "d"
    )
    assert (options.recipe, options.seeds, options.output_dir) == (RECIPE, 5, "o")
    assert [v.recipe for v in found] == [recipe(steps=7, lr=1e-3), recipe(steps=7, lr=1e-3, alpha_ce=0.0)]
    assert parse([], "d")[0].seeds == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--seeds 0", "seeds is 0"),
        ("--seeds two", "--seeds"),
        ("--witout ce", "did you mean --without?"),
        ("--without", "--without"),
        ("--without ce mlm", "mlm"),
    ],
)
def test_a_mistake_on_the_command_line(arguments, said):
    with pytest.raises(ConfigError, match=said):
        parse(arguments.split(), "d")


def test_help_says_where_the_runs_go(capsys):
    with pytest.raises(SystemExit):
        parse(["--help"], "d")
    printed = " ".join(capsys.readouterr().out.split())
    assert "default: runs/ablation-RECIPE" in printed and "next free number" not in printed
    assert "--without PART,..." in printed and "--alpha_ce" in printed
