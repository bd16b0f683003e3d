"""Reading recipes: one over another, overrides by name, and every mistake refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from distil.config import GROUPS, Recipe, completed, nearest, shipped_recipes
from distil.errors import ConfigError
from distil.identity import difference

# --- a recipe over another -----------------------------------------------------------------------------------------


def test_a_recipe_states_what_differs_from_its_base(written, tmp_path):
    below = Recipe.load(written())
    path = tmp_path / "over.toml"
    path.write_text('base = "mine.toml"\n[optimizer]\nlr = 1.0\n')
    found = Recipe.load(str(path))
    assert found.name == "over" and found.optimizer == dataclasses.replace(below.optimizer, lr=1.0)
    assert (found.model, found.loss, found.data) == (below.model, below.loss, below.data)


@pytest.mark.parametrize(("own", "depth", "layers"), [("student_depth = 3", 3, ()), ("student_layers = [1]", 0, (1,))])
def test_depth_and_layers_stand_for_each_other(written, tmp_path, own, depth, layers):
    written("student_layers = [0, 2]", "student_depth = 2" if layers else "student_layers = [0, 2]")
    (tmp_path / "over.toml").write_text(f'base = "mine.toml"\n[model]\n{own}\n')
    model = Recipe.load(str(tmp_path / "over.toml")).model
    assert (model.student_depth, model.student_layers) == (depth, layers)
    given = {"student_depth": depth} if depth else {"student_layers": list(layers)}
    assert Recipe.load(str(tmp_path / "mine.toml"), given).model == model  # as on the command line


def test_depth_and_layers_that_differ_are_refused(written):
    message = refusal(written("student_layers = [0, 2]", "student_layers = [0, 2]\nstudent_depth = 3"))
    assert "student_depth is 3, but student_layers names 2: give one" in message


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ('"over.toml"', "it is its own base"),
        ('"distilbert-base-uncasd"', "no recipe distilbert-base-uncasd (did you mean distilbert-base-uncased?)"),
        ("3", "base must be the name of a recipe, not 3"),
    ],
)
def test_a_base_that_is_none(tmp_path, base, said):
    path = tmp_path / "over.toml"
    path.write_text(f"base = {base}\n")
    assert said in refusal(str(path))


def test_a_recipe_without_masking_masks_nothing(written, tmp_path):
    text = Path(written()).read_text()
    start, end = text.index("[masking]"), text.index("[data]")
    path = tmp_path / "causal.toml"
    path.write_text(text[:start] + text[end:])
    assert Recipe.load(str(path)).masking.mlm_fraction == 0
    assert "mask_share is missing" in refusal(str(path), {"mlm_fraction": 0.15})


def test_a_run_begun_before_a_field_existed_is_the_same_run():
    identity = {"recipe": "r", "mathematics": Recipe.load("quickstart").mathematics()}
    then = {"recipe": "r", "mathematics": {t: dict(values) for t, values in identity["mathematics"].items()}}
    del then["mathematics"]["loss"]["kd_until"], then["mathematics"]["loss"]["hidden_layers"]
    assert difference(completed(then, identity), identity) == "" != difference(then, identity)
    del then["mathematics"]["loss"]["temperature"]  # which has no default
    assert "temperature" in difference(completed(then, identity), identity)


def test_mathematics_has_every_field_but_those_of_the_run():
    tables = Recipe.load("quickstart").mathematics()
    named = {table: set(values) for table, values in tables.items()}
    assert named == {t: {f.name for f in dataclasses.fields(g)} for t, g in GROUPS.items() if t != "run"}


# --- mistakes ------------------------------------------------------------------------------------------------------


def refusal(path: str, overrides: dict | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        Recipe.load(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[loss]", "[losses]", ("unknown table [losses]", "did you mean loss?")),
        ("temperature", "temprature", ("[loss]", "unknown field temprature", "did you mean temperature?")),
        ("", "[run]\nlog_evry = 3\n", ("[run]", "unknown field log_evry", "did you mean log_every?")),
        ("seed = 56", "seed = 56\nzzzzqqqq = 1", ("unknown field zzzzqqqq",)),
        ("temperature = 2.0", "", ("[loss]", "temperature is missing", "softened")),
        ('store = "s"', "", ("[data]", "store is missing")),
        ("lr = 5e-4", 'lr = "fast"', ("[optimizer]: lr", "float", "'fast'")),
        ("epochs = 3", "epochs = 3.0", ("[optimizer]: epochs", "int", "3.0")),
        ("epochs = 3", "epochs = true", ("[optimizer]: epochs", "int", "True")),
        ("lr = 5e-4", "lr = true", ("[optimizer]: lr", "float", "True")),
        ('teacher = "t"', "teacher = 3", ("[model]: teacher", "str", "3")),
        ("alpha_cos = 1", "alpha_cos = 1\nrestrict_ce_to_mask = 1", ("restrict_ce_to_mask", "bool", "1")),
        ("student_layers = [0, 2]", "student_layers = []", ("student_layers", "list of integers")),
        ("student_layers = [0, 2]", "student_layers = [0, 2.0]", ("student_layers", "list of integers")),
        ("student_layers = [0, 2]", "student_layers = [true]", ("student_layers", "list of integers")),
        ("student_layers = [0, 2]", "student_layers = 2", ("student_layers", "list of integers", "2")),
        ('store = "s"', "store = []", ("store", "list of texts")),
        ('store = "s"', "store = [1]", ("store", "list of texts")),
        ("[loss]", "[loss", ("not TOML", "line")),
        ("seed = 56", "seed = 56\nseed = 57", ("not TOML",)),
    ],
)  # fmt: skip
def test_a_mistake_in_the_file_is_named(written, old, new, said):
    path = written(old, new)
    message = refusal(path)
    for text in (path, *said):
        assert text in message


# --- overrides and paths -------------------------------------------------------------------------------------------


def test_overrides_replace_fields_and_nothing_else(written):
    path = written()
    plain = Recipe.load(path)
    changed = Recipe.load(path, {"lr": 1, "student_layers": [1], "log_every": 7})
    assert changed.optimizer == dataclasses.replace(plain.optimizer, lr=1.0) and type(changed.optimizer.lr) is float
    assert changed.model == dataclasses.replace(plain.model, student_layers=(1,))
    assert changed.run == dataclasses.replace(plain.run, log_every=7)
    assert (changed.loss, changed.masking, changed.data) == (plain.loss, plain.masking, plain.data)


def test_an_override_can_give_what_the_file_lacks(written):
    assert Recipe.load(written("lr = 5e-4", ""), {"lr": 0.25}).optimizer.lr == 0.25


def test_an_override_is_checked_like_the_file(written):
    assert "lr must be of type float, not 'fast'" in refusal(written(), {"lr": "fast"})


def test_an_unknown_override_names_the_nearest(written):
    message = refusal(written(), {"temprature": 1.0})
    assert "unknown option temprature" in message and "did you mean temperature?" in message


def test_a_recipe_in_a_file_is_named_after_it(written):
    assert Recipe.load(written()).name == "mine"


def test_an_unknown_recipe_names_the_nearest_and_all():
    message = refusal("quickstrat")
    assert "did you mean quickstart" in message
    assert all(name in message for name in shipped_recipes())


def test_a_missing_file_is_refused(tmp_path):
    assert str(tmp_path / "no.toml") in refusal(str(tmp_path / "no.toml"))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "binary.toml"
    path.write_bytes(b"\xff\xfe\x00")
    assert "not TOML" in refusal(str(path))


def test_nearest_is_silent_where_nothing_is_near():
    assert nearest("zzzzqqqq", ["temperature", "lr"]) == ""
    assert nearest("alpha_cs", ["alpha_ce", "alpha_cos", "lr"]) == " (did you mean alpha_cos?)"


@pytest.mark.parametrize("text", ["model = 3", "[[model]]"])
def test_a_group_that_is_no_table(tmp_path, text):
    (tmp_path / "r.toml").write_text(text + "\n")
    with pytest.raises(ConfigError, match="model must be one table"):
        Recipe.load(str(tmp_path / "r.toml"))
