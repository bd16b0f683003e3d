"""Recipes: what ships is what was published, every field is used, and every mistake is refused by name."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from pathlib import Path

import pytest

import distil
from distil.config import GROUPS, Loss, Recipe, completed, field_names, nearest, shipped_recipes
from distil.errors import ConfigError
from distil.identity import difference

RECIPE = """
[model]
teacher = "t"
student = "distilbert"
student_layers = [0, 2]
dropout = 0.1
[loss]
temperature = 2.0
alpha_ce = 5.0
alpha_mlm = 2.0
alpha_cos = 1
[masking]
mlm_fraction = 0.15
mask_share = 0.8
keep_share = 0.1
mlm_smoothing = 0.7
[data]
store = "s"
max_length = 32
batch_size = 12
micro_batch_size = 4
[optimizer]
lr = 5e-4
adam_beta1 = 0.9
adam_beta2 = 0.98
adam_eps = 1e-6
weight_decay = 0.0
warmup_fraction = 0.05
max_grad_norm = 5.0
epochs = 3
seed = 56
"""


@pytest.fixture
def written(tmp_path):
    """Writes the recipe above with one text replaced, and returns its path."""

    def write(old: str = "", new: str = "") -> str:
        assert old in RECIPE
        path = tmp_path / "mine.toml"
        path.write_text(RECIPE.replace(old, new, 1) if old else RECIPE + new)
        return str(path)

    return write


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
            "teacher": "bert-base-uncased", "tokenizer": "", "student": "distilbert", "student_depth": 6,
            "student_layers": [], "student_hidden": 0, "student_heads": 0, "student_feed_forward": 0,
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
        "teacher": "bert-base-multilingual-cased", "store": ("data/wiki-*",), "sampling_exponent": 0.7,
    },
    "distilroberta-base": {"teacher": "roberta-base", "student": "roberta", "store": ("data/openwebtext-roberta",)},
    "distilgpt2": {
        "teacher": "gpt2", "student": "gpt2", "store": ("data/openwebtext-gpt2",), "alpha_mlm": 0.0, "alpha_clm": 2.0,
        "mlm_fraction": 0.0, "mask_share": 0.0, "keep_share": 0.0, "mlm_smoothing": 0.0, "max_length": 1024,
        "batch_size": 2048, "micro_batch_size": 4,
    },
}  # fmt: skip


def fields(recipe: Recipe) -> dict[str, object]:
    return {name: value for table in GROUPS for name, value in vars(getattr(recipe, table)).items()}


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


def test_without_a_label_nothing_goes_on_after_the_teacher(written):
    assert "nothing goes on then" in refusal(written(), {"alpha_mlm": 0.0, "kd_until": 0.5})


def test_mathematics_has_every_field_but_those_of_the_run():
    tables = Recipe.load("quickstart").mathematics()
    named = {table: set(values) for table, values in tables.items()}
    assert named == {t: {f.name for f in dataclasses.fields(g)} for t, g in GROUPS.items() if t != "run"}


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
    assert f"sampling_exponent is {float(exponent)} and store a:1 b:2" in message and "give one of them" in message
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


@pytest.mark.parametrize(
    ("name", "value"),
    [("dropout", 1.5), ("dropout", -0.1), ("adam_beta1", 1.5), ("adam_eps", -1.0), ("weight_decay", -1.0),
     ("mlm_smoothing", math.nan), ("lr", math.inf), ("temperature", math.inf), ("alpha_ce", math.inf)],
)  # fmt: skip
def test_numbers_that_no_recipe_can_mean(name, value):
    with pytest.raises(ConfigError, match=name):
        Recipe.load("quickstart", {name: value})


@pytest.mark.parametrize("text", ["model = 3", "[[model]]"])
def test_a_group_that_is_no_table(tmp_path, text):
    (tmp_path / "r.toml").write_text(text + "\n")
    with pytest.raises(ConfigError, match="model must be one table"):
        Recipe.load(str(tmp_path / "r.toml"))
