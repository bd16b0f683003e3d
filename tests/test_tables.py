"""The tables of a recipe: every field is used and documented, every value held to its range."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from pathlib import Path

import pytest

import distil
from distil.config import GROUPS, Recipe, field_names
from distil.errors import ConfigError
from distil.tables import Loss


def refusal(path: str, overrides: dict | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        Recipe.load(path, overrides)
    return str(caught.value)


def test_numbers_derived_from_the_batch(written):
    data = Recipe.load(written()).data
    assert (data.budget_tokens, data.micro_batches) == (4 * 32, 3)


@pytest.mark.parametrize(
    ("alphas", "needed"),
    [({"alpha_ce": 1.0}, True), ({"alpha_cos": 1.0}, True), ({"alpha_mse": 1.0}, True), ({}, False)],
)
def test_a_teacher_is_needed_where_a_term_compares_with_it(written, alphas, needed):
    only_mlm = {"alpha_ce": 0.0, "alpha_cos": 0.0, "alpha_mlm": 1.0, "alpha_clm": 1.0}
    assert Recipe.load(written(), {**only_mlm, **alphas}).loss.needs_teacher is needed


def test_without_a_label_nothing_goes_on_after_the_teacher(written):
    assert "nothing goes on then" in refusal(written(), {"alpha_mlm": 0.0, "kd_until": 0.5})


# --- every field is read -------------------------------------------------------------------------------------------


def _attributes_read() -> set[str]:
    """Names x.NAME read in the package, outside of declaration and command line; self.NAME is someone else's."""
    read = set()
    for path in Path(distil.__file__).parent.rglob("*.py"):
        if path.name not in ("config.py", "tables.py", "options.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                    owner = node.value.id if isinstance(node.value, ast.Name) else ""
                    read |= {node.attr} if owner != "self" else set()
    return read


def test_every_field_is_read_somewhere():
    from distil.kernels import triple_loss

    # Fields of [loss] go to the loss as keyword arguments; hidden_layers is read as the numbers it stands for.
    by_keyword = {f.name for f in dataclasses.fields(Loss)} & set(inspect.signature(triple_loss).parameters)
    by_keyword |= {"hidden_layers"} if "hidden_pairs" in _attributes_read() else set()
    read = _attributes_read()
    unread = [name for name in field_names() if name not in read | by_keyword]
    assert unread == [], f"dead options: {unread}"


def test_field_names_are_unique_over_the_groups():
    assert len(field_names()) == len(set(field_names()))


def test_every_field_says_what_it_is():
    for group in GROUPS.values():
        for field in dataclasses.fields(group):
            assert field.metadata["help"].strip(), field.name


def test_only_terms_that_are_off_have_a_default_in_the_mathematics():
    defaults = {
        f.name: f.default
        for table, group in GROUPS.items()
        for f in dataclasses.fields(group)
        if table != "run" and f.default is not dataclasses.MISSING
    }
    assert defaults == {
        "tokenizer": "", "student_depth": 0, "student_layers": (), "student_hidden": 0, "student_heads": 0,
        "student_feed_forward": 0, "initial_weights": "teacher", "alpha_mlm": 0.0, "alpha_clm": 0.0, "alpha_mse": 0.0,
        "alpha_hidden": 0.0, "hidden_layers": (), "alpha_relations": 0.0, "relation_heads": 48, "relation_layer": -1,
        "kd_until": 1.0, "restrict_ce_to_mask": False, "normalize": "global", "sampling_exponent": 1.0, "steps": 0,
    }  # fmt: skip


# --- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "wanted"),
    [
        ('"s"', [("s", None)]),
        ('["a", "b/c"]', [("a", None), ("b/c", None)]),
        ('["a:0.7", "b:3e-1"]', [("a", 0.7), ("b", 0.3)]),
        ('["sample:text", "x:y:z"]', [("sample:text", None), ("x:y:z", None)]),
        ('["sample:text:.5", "b:2."]', [("sample:text", 0.5), ("b", 2.0)]),
    ],
)
def test_stores_and_their_weights(written, entries, wanted):
    assert Recipe.load(written('store = "s"', f"store = {entries}")).data.stores == wanted


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ('["a:0.5", "b"]', "store is a:0.5 b: give every store a weight"),
        ('["a:0", "b:1"]', "weight of store is 'a:0'; it must be above 0"),
        ('["a:1", "a:2"]', "store is a:1 a:2; it must be without repetition"),
    ],
)
def test_weights_that_make_no_mixture(written, entries, said):
    assert said in refusal(written('store = "s"', f"store = {entries}"))


@pytest.mark.parametrize("exponent", [0, 0.7])
def test_weights_and_an_exponent_exclude_each_other(written, exponent):
    weighted = written('store = "s"', 'store = ["a:1", "b:2"]')
    message = refusal(weighted, {"sampling_exponent": exponent})
    assert (
        f"sampling_exponent is {float(exponent)} and store a:1 b:2" in message
        and "give --sampling_exponent 1" in message
    )
    assert Recipe.load(weighted, {"sampling_exponent": 1}).data.sampling_exponent == 1.0  # changes nothing
    bare = Recipe.load(weighted, {"sampling_exponent": exponent, "store": ["a", "b"]})
    assert bare.data.sampling_exponent == float(exponent)


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("temperature", 0.0, "above 0"), ("temperature", -1.0, "above 0"), ("temperature", float("nan"), "above 0"),
        ("normalize", "rank", "global or micro_batch"),
        *((f"alpha_{t}", -1.0, "0 or more") for t in ("ce", "mlm", "cos", "clm", "mse", "hidden", "relations")),
        ("mlm_fraction", -0.1, "from 0 to below 1"), ("mlm_fraction", 1.0, "from 0 to below 1"),
        ("student_hidden", -1, "0 or more"), ("student_depth", -1, "0 or more"), ("student_heads", -2, "0 or more"),
        ("student_feed_forward", -1, "0 or more"), ("initial_weights", "zero", "teacher or random"),
        ("relation_heads", 0, "above 0"), ("relation_layer", -2, "-1 or more"), ("kd_until", 0.0, "above 0"),
        ("kd_until", 1.5, "at most 1"),
        ("mask_share", 0.95, "at most 1"), ("keep_share", -0.1, "at most 1"), ("mask_share", -0.1, "at most 1"),
        ("max_length", 0, "above 0"), ("batch_size", 0, "above 0"), ("micro_batch_size", -4, "above 0"),
        *(("sampling_exponent", value, "from 0 to 1") for value in (-0.1, 1.01, math.nan)),
        ("lr", 0.0, "above 0"), ("warmup_fraction", 1.0, "below 1"), ("warmup_fraction", -0.1, "from 0"),
        ("max_grad_norm", 0.0, "above 0"), ("epochs", 0, "above 0"), ("steps", -1, "0 or more"),
        ("seed", -1, "0 or more"), ("log_every", 0, "above 0"), ("eval_every", -1, "0 or more"),
        ("save_every", -1, "0 or more"), ("heldout_tokens", 0, "above 0"), ("keep_checkpoints", 0, "above 0"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused(written, name, value, wanted):
    message = refusal(written(), {name: value})
    assert name in message and str(value) in message and wanted in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("alpha_ce", 0.0), ("mlm_fraction", 0.999), ("keep_share", 0.2), ("warmup_fraction", 0.0), ("steps", 0),
        ("seed", 0), ("eval_every", 0), ("save_every", 0), ("normalize", "micro_batch"), ("sampling_exponent", 0.0),
    ],
)  # fmt: skip
def test_the_edge_of_a_range_is_within(written, name, value):
    recipe = Recipe.load(written(), {name: value})
    assert value in [getattr(getattr(recipe, table), name, None) for table in GROUPS]


@pytest.mark.parametrize("entry", ["2", "a:b", "1:", "1:2:3", "-1:2"])
def test_pairs_of_layers_that_are_none(written, entry):
    said = f"hidden_layers is {entry!r}; it must be STUDENT:TEACHER, such as 2:5"
    assert said in refusal(written(), {"hidden_layers": ["0:0", entry]})
    assert Recipe.load(written(), {"hidden_layers": ["2:5", "0:11"]}).loss.hidden_pairs == ((2, 5), (0, 11))


def test_a_recipe_without_any_loss_is_refused(written):
    off = {"alpha_ce": 0.0, "alpha_mlm": 0.0, "alpha_cos": 0.0}
    message = refusal(written(), off)
    assert message.startswith("every term of the loss has weight 0; give one of --alpha_ce, --alpha_mlm, ")


def test_batch_numbers_that_contradict_each_other(written):
    message = refusal(written(), {"batch_size": 10})
    assert "batch_size 10" in message and "micro_batch_size 4" in message
    assert "--batch_size 12" in message  # the next multiple of 4
    assert Recipe.load(written(), {"batch_size": 12}).data.micro_batches == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [("dropout", 1.5), ("dropout", -0.1), ("adam_beta1", 1.5), ("adam_eps", -1.0), ("weight_decay", -1.0),
     ("mlm_smoothing", math.nan), ("lr", math.inf), ("temperature", math.inf), ("alpha_ce", math.inf)],
)  # fmt: skip
def test_numbers_that_no_recipe_can_mean(name, value):
    with pytest.raises(ConfigError, match=name):
        Recipe.load("quickstart", {name: value})
