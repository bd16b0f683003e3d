"""A ds_config against a recipe: one owner a number, contradictions refused, precision that the device has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import distil
from distil.config import Recipe, shipped_recipes
from distil.errors import ConfigError
from distil.placement import FOREIGN_BLOCKS, place, read_ds_config

SHIPPED = sorted((Path(distil.__file__).parents[1] / "ds_config").glob("*.json"))
ALL = ("fp16", "bf16", "fp32")
RECIPE = Recipe.load("quickstart", {"batch_size": 24, "micro_batch_size": 4, "max_grad_norm": 1.0})


def placed(path, recipe=RECIPE, ranks=1, device="cuda", precisions=ALL, asked="auto"):
    return place(path, recipe, ranks, device, precisions, asked)


@pytest.fixture
def written(tmp_path):
    def write(config: object) -> Path:
        path = tmp_path / "mine.json"
        path.write_text(config if isinstance(config, str) else json.dumps(config))
        return path

    return write


def refusal(*args, **kwargs) -> str:
    with pytest.raises(ConfigError) as caught:
        placed(*args, **kwargs)
    return str(caught.value)


def leaves(tree):
    if isinstance(tree, dict | list):
        for item in tree.values() if isinstance(tree, dict) else tree:
            yield from leaves(item)
    else:
        yield tree


def test_layers_are_compiled_where_that_is_asked_for_and_can_be(written):
    zero2 = written({"zero_optimization": {"stage": 2}})
    assert not placed(zero2).compiled
    assert place(zero2, RECIPE, 1, "cuda", ALL, "auto", True).compiled
    zero3 = written({"zero_optimization": {"stage": 3}})
    with pytest.raises(ConfigError, match=r"--compile and ZeRO stage 3 of ds_config .*mine.json do not go together"):
        place(zero3, RECIPE, 1, "cuda", ALL, "auto", True)


# --- what ships ----------------------------------------------------------------------------------------------------


def test_there_are_ds_configs_for_every_stage():
    assert {placed(path).zero_stage for path in SHIPPED} == {0, 1, 2, 3}


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", shipped_recipes())
def test_every_recipe_with_every_ds_config(name, path, ranks):
    recipe = Recipe.load(name)
    found = placed(path, recipe, ranks)
    c, o = found.config, recipe.optimizer
    assert "auto" not in list(leaves(c))
    # DeepSpeed's own identity, which it asserts when it starts.
    product = c["train_micro_batch_size_per_gpu"] * c["gradient_accumulation_steps"] * ranks
    assert c["train_batch_size"] == product == recipe.data.batch_size
    assert c["train_micro_batch_size_per_gpu"] == recipe.data.micro_batch_size
    assert found.accumulation == c["gradient_accumulation_steps"] and found.ranks == ranks
    assert c["gradient_clipping"] == o.max_grad_norm
    params = c["optimizer"]["params"]
    numbers = [params[n] for n in ("lr", "eps", "weight_decay", "betas")]
    assert numbers == [o.lr, o.adam_eps, o.weight_decay, [o.adam_beta1, o.adam_beta2]]
    assert (found.path, found.zero_stage) == (str(path), c["zero_optimization"]["stage"])
    assert found.precision == ("bf16" if "bf16" in path.stem else "fp16") and found.notes == ()


def test_placing_does_not_change_the_file_or_an_earlier_placement(written):
    path = written({"optimizer": {"type": "AdamW"}, "zero_optimization": {"stage": 1}})
    before = path.read_bytes()
    first = placed(path)
    placed(path, Recipe.load("quickstart", {"lr": 0.5}))
    assert path.read_bytes() == before
    assert first.config["optimizer"]["params"]["lr"] == RECIPE.optimizer.lr


def test_an_empty_ds_config_is_filled(written):
    found = placed(written({}), ranks=2)
    c = found.config
    sizes = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    assert [c[name] for name in sizes] == [24, 4, 3]
    assert c["optimizer"]["type"] == "AdamW" and c["optimizer"]["params"]["lr"] == RECIPE.optimizer.lr
    assert (found.precision, found.zero_stage) == ("fp32", 0)
    assert "fp16" not in c and "bf16" not in c
    assert c["steps_per_print"] > 10**9  # in practice never: the bar is ours


def test_what_a_ds_config_owns_passes_untouched(written):
    own = {"stage": 2, "reduce_bucket_size": 12345, "offload_optimizer": {"device": "cpu"}}
    fp16 = {"enabled": True, "initial_scale_power": 7}
    found = placed(
        written({"zero_optimization": own, "fp16": fp16, "steps_per_print": 5, "wall_clock_breakdown": True})
    )
    assert found.config["zero_optimization"] == own and found.config["fp16"] == fp16
    assert found.config["steps_per_print"] == 5 and found.config["wall_clock_breakdown"] is True


# --- numbers with two owners ---------------------------------------------------------------------------------------

OWNED = {
    "train_batch_size": 24,
    "train_micro_batch_size_per_gpu": 4,
    "gradient_accumulation_steps": 3,
    "gradient_clipping": 1.0,
}
OWNED_BY_ADAMW = {"lr": 6e-4, "eps": 1e-6, "weight_decay": 0.0, "betas": [0.9, 0.98]}


def test_numbers_that_agree_are_accepted(written):
    config = {**OWNED, "optimizer": {"type": "adamw", "params": dict(OWNED_BY_ADAMW)}}
    found = placed(written(config), ranks=2)
    assert {name: found.config[name] for name in OWNED} == OWNED
    assert found.config["optimizer"] == {"type": "adamw", "params": OWNED_BY_ADAMW}


@pytest.mark.parametrize("wrong", [7, "4", True, None])
@pytest.mark.parametrize("name", OWNED)
def test_a_number_that_contradicts_the_recipe(written, name, wrong):
    path = written({name: wrong})
    message = refusal(path, ranks=2)
    assert f"{name} is {wrong!r}" in message and str(path) in message and "recipe quickstart" in message
    assert str(OWNED[name]) in message


@pytest.mark.parametrize("name", OWNED_BY_ADAMW)
def test_an_optimizer_number_that_contradicts_the_recipe(written, name):
    wrong = [0.9, 0.999] if name == "betas" else 0.125
    path = written({"optimizer": {"type": "AdamW", "params": {name: wrong}}})
    message = refusal(path)
    assert name in message and str(wrong) in message and str(OWNED_BY_ADAMW[name]) in message
    assert str(path) in message and "recipe quickstart" in message


def test_true_is_not_the_number_one(written):
    assert "gradient_clipping is True" in refusal(written({"gradient_clipping": True}))


def test_a_number_of_a_batch_is_named_as_the_recipe_names_it(written):
    assert "micro_batch_size = 4" in refusal(written({"train_micro_batch_size_per_gpu": 8}))


@pytest.mark.parametrize("block", [{"type": "Adam"}, {"type": "Lamb"}, {}, "AdamW"])
def test_an_optimizer_that_is_not_adamw(written, block):
    path = written({"optimizer": block})
    message = refusal(path)
    assert "AdamW" in message and str(path) in message


def test_ranks_that_do_not_divide_leave_places_empty(written):
    found = placed(written({}), ranks=4)  # 6 micro-batches of 4
    assert found.accumulation == 2 and found.config["train_batch_size"] == 32
    assert "6 micro-batches" in found.notes[-1] and "--batch_size 32 would fill" in found.notes[-1]
    filled = placed(written({}), Recipe.load("quickstart", {"batch_size": 32}), ranks=4)
    assert filled.accumulation == 2 and not any("empty" in note for note in filled.notes)


@pytest.mark.parametrize("ranks", range(1, 9))
def test_the_default_runs_on_any_number_of_ranks(ranks):
    found = place("ds_config/zero1.json", Recipe.load("quickstart"), ranks, "cuda", ("fp16", "bf16", "fp32"), "auto")
    assert found.accumulation * ranks >= 4 > (found.accumulation - 1) * ranks


def test_bf16_sums_gradients_in_fp32(written):
    found = placed(written({"bf16": {"enabled": True}, "zero_optimization": {"stage": 1}}))
    assert found.config["data_types"] == {"grad_accum_dtype": "fp32"}


@pytest.mark.parametrize(
    "block", ["scheduler", "data_efficiency", "curriculum_learning", "amp", "activation_checkpointing"]
)
def test_a_block_that_trains_something_else(written, block):
    assert block in FOREIGN_BLOCKS
    path = written({block: {}})
    message = refusal(path)
    assert f"remove {block}" in message and str(path) in message


@pytest.mark.parametrize("stage", [4, -1, "2", None, "auto"])
def test_a_zero_stage_that_does_not_exist(written, stage):
    path = written({"zero_optimization": {"stage": stage}})
    message = refusal(path)
    assert "zero_optimization.stage" in message and str(path) in message


def test_an_auto_that_nobody_fills_is_named(written):
    path = written({"zero_optimization": {"stage": 2, "deep": {"reduce_bucket_size": "auto"}}})
    message = refusal(path)
    assert "zero_optimization.deep.reduce_bucket_size" in message and str(path) in message


# --- precision -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stated", "precisions", "chosen"),
    [
        ("fp16", ("bf16", "fp32"), "bf16"), ("fp16", ("fp32",), "fp32"), ("bf16", ("fp16", "fp32"), "fp16"),
        ("bf16", ("fp32",), "fp32"),
    ],
)  # fmt: skip
def test_a_precision_the_device_lacks_falls_back_with_a_note(written, stated, precisions, chosen):
    path = written({stated: {"enabled": True, "loss_scale": 0}})
    found = placed(path, device="cpu", precisions=precisions)
    assert found.precision == chosen
    on = {name for name in ("fp16", "bf16") if found.config.get(name, {}).get("enabled")}
    assert on == {chosen} - {"fp32"} and stated not in found.config
    (note,) = found.notes
    assert "\n" not in note and all(text in note for text in (stated, chosen, str(path), "cpu", "--precision"))


@pytest.mark.parametrize("asked", ALL)
@pytest.mark.parametrize("stated", ALL)
@pytest.mark.parametrize("precisions", [ALL, ("fp32",)])
def test_the_precision_asked_for_wins(written, stated, asked, precisions):
    config = {} if stated == "fp32" else {stated: {"enabled": True}}
    found = placed(written(config), precisions=precisions, asked=asked)
    assert found.precision == asked and found.notes == ()
    on = {name for name in ("fp16", "bf16") if found.config.get(name, {}).get("enabled")}
    assert on == {asked} - {"fp32"}


def test_a_precision_switched_off_is_off(written):
    found = placed(written({"fp16": {"enabled": False}, "bf16": {"enabled": True}}))
    assert found.precision == "bf16" and "fp16" not in found.config


def test_two_precisions_at_once(written):
    path = written({"fp16": {"enabled": True}, "bf16": {"enabled": True}})
    message = refusal(path)
    assert "fp16" in message and "bf16" in message and str(path) in message


# --- files ---------------------------------------------------------------------------------------------------------


def test_bad_json_is_located(written):
    path = written('{\n  "a": 1,\n  "b" 2\n}')
    message = refusal(path)
    assert "line 3, column 7" in message and str(path) in message and "\n" not in message


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '{"zero_optimization": {"a": 1, "b": 2, "a": 3}}'])
def test_a_key_stated_twice(written, text):
    path = written(text)
    message = refusal(path)
    assert "a is stated twice" in message and str(path) in message


@pytest.mark.parametrize("text", ["[]", '"auto"', "3", "null"])
def test_json_that_is_no_object(written, text):
    assert "object" in refusal(written(text))


def test_a_file_that_is_not_there(tmp_path):
    message = refusal(tmp_path / "no.json")
    assert str(tmp_path / "no.json") in message and "ds_config/" in message


def test_files_that_cannot_be_read(tmp_path):
    assert "cannot be read" in refusal(tmp_path)  # a folder
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in refusal(tmp_path / "binary.json")


def test_reading_keeps_the_file_as_it_is(written):
    config = {"train_batch_size": "auto", "zero_optimization": {"stage": 2}}
    assert read_ds_config(written(config)) == config


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"fp16": True}, "fp16 is True"),
        ({"zero_optimization": 2}, "zero_optimization is 2"),
        ({"optimizer": {"type": "AdamW", "params": None}}, "optimizer.params is None"),
        ({"zero_optimization": {"stage": True}}, "stage is True"),
        ({"zero_optimization": {"stage": 2.0}}, "stage is 2.0"),
        ({"fp16": {"enabled": "auto"}}, "fp16.enabled is 'auto'"),
        ({"tensorboard": {"paths": ["auto"]}}, "tensorboard.paths.0 is"),
    ],
)
def test_blocks_of_the_wrong_kind(tmp_path, config, said):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=re.escape(said)):
        place(path, Recipe.load("quickstart"), 1, "cpu", ("bf16", "fp32"), "auto")
