"""The command line: every recipe field by its name, mistakes refused in one line, and no heavy library for it."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

import distil
from distil.config import GROUPS, Recipe, field_names, shipped_recipes
from distil.errors import ConfigError
from distil.options import Options, parse

ROOT = Path(distil.__file__).parents[1]

# A valid value of each field that no shipped recipe has, as typed and as read.
CHANGED = {
    "teacher": "t", "tokenizer": "k", "student": "bert", "student_depth": "2", "student_layers": "3 1",
    "student_hidden": "64", "student_heads": "4", "student_feed_forward": "96", "initial_weights": "random",
    "alpha_hidden": "0.5", "hidden_layers": "0:1 1:5", "alpha_relations": "0.75", "relation_heads": "12",
    "relation_layer": "3", "kd_until": "0.5", "dropout": "0.25", "temperature": "3.5",
    "alpha_ce": "0.5", "alpha_mlm": "0.25", "alpha_cos": "0.125", "alpha_clm": "2", "alpha_mse": "1e-3",
    "restrict_ce_to_mask": "true", "normalize": "micro_batch", "mlm_fraction": "0.25", "mask_share": "0.5",
    "keep_share": "0.25", "mlm_smoothing": "0.5", "store": "s t", "max_length": "77", "batch_size": "9",
    "micro_batch_size": "3", "sampling_exponent": "0.5", "lr": "1e-3", "adam_beta1": "0.5",
    "adam_beta2": "0.75", "adam_eps": "1e-3",
    "weight_decay": "0.5", "warmup_fraction": "0.5", "max_grad_norm": "0.5", "epochs": "7", "steps": "77",
    "seed": "7", "log_every": "7", "eval_every": "7", "save_every": "7", "keep_checkpoints": "7",
    "heldout_store": "h", "heldout_tokens": "7", "max_bad_steps": "7", "spike_factor": "3.5",
    "silence_seconds": "33.5", "hang_seconds": "44.5",
}  # fmt: skip


def values(recipe: Recipe) -> dict[str, object]:
    return {name: value for table in GROUPS for name, value in vars(getattr(recipe, table)).items()}


def refusal(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(arguments, "d")
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- what is given -------------------------------------------------------------------------------------------------


def test_nothing_given_is_the_embedded_default():
    options, recipe = parse([], "d")
    assert options == Options(
        recipe="quickstart", deepspeed="ds_config/zero1.json", output_dir=None, max_steps=None, precision="auto",
        dry_run=False, compile=False,
    )  # fmt: skip
    assert parse(["--compile"], "d")[0].compile
    assert recipe == Recipe.load("quickstart")
    assert (ROOT / options.deepspeed).is_file()


def test_every_field_can_be_overridden():
    assert CHANGED.keys() == set(field_names())
    arguments = [word for name, text in CHANGED.items() for word in (f"--{name}", *text.split())]
    _, recipe = parse(arguments, "d")
    plain = values(Recipe.load("quickstart"))
    for name, found in values(recipe).items():
        text = CHANGED[name]
        wanted = {
            str: str,
            float: float,
            int: int,
            bool: {"true": True}.get,
            tuple: lambda t: tuple(int(word) if word.isdigit() else word for word in t.split()),
        }
        assert found == wanted[type(found)](text), name
        assert found != plain[name] and type(found) is type(plain[name]), name


@pytest.mark.parametrize("name", ["temperature", "student_hidden", "store"])
def test_one_override_leaves_the_rest(name):
    plain = values(Recipe.load("distilbert-base-uncased"))
    _, recipe = parse(["--recipe", "distilbert-base-uncased", f"--{name}", *CHANGED[name].split()], "d")
    assert {n for n, v in values(recipe).items() if v != plain[n]} == {name}


def test_run_options():
    arguments = "--recipe quickstart-teacher --deepspeed d.json --output_dir o --max_steps 3 --precision bf16 --dry_run"
    options, recipe = parse(arguments.split(), "d")
    assert options == Options("d.json", "o", 3, "bf16", True, recipe="quickstart-teacher")
    assert recipe.name == "quickstart-teacher"


def test_an_equals_sign_does_as_well():
    options, recipe = parse(["--lr=0.25", "--recipe=quickstart-teacher"], "d")
    assert recipe.optimizer.lr == 0.25 and options.recipe == "quickstart-teacher"


@pytest.mark.parametrize(("text", "wanted"), [("true", True), ("False", False), ("TRUE", True), ("false", False)])
def test_booleans(text, wanted):
    assert parse(["--restrict_ce_to_mask", text], "d")[1].loss.restrict_ce_to_mask is wanted


def test_the_launchers_own_option_is_taken_and_ignored():
    assert parse(["--local_rank=3"], "d") == parse([], "d")


# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--temprature 3", ("unknown option --temprature", "did you mean --temperature?")),
        ("--temprature=3", ("unknown option --temprature", "did you mean --temperature?")),
        ("--outputdir x", ("unknown option --outputdir", "did you mean --output_dir?")),
        ("--zzzzqqqq 3", ("unknown option --zzzzqqqq",)),
        ("--temp 3", ("unknown option --temp",)),  # no abbreviations: a later option must not change their meaning
        ("--student_layer 3", ("unknown option --student_layer", "did you mean --student_layers?")),
        ("--max_step 3", ("unknown option --max_step", "did you mean --max_steps?")),
        ("--rec quickstart", ("unknown option --rec",)),
        ("stray", ("stray",)),
        ("--epochs three", ("--epochs", "three")),
        ("--epochs 1.5", ("--epochs", "1.5")),
        ("--lr fast", ("--lr", "fast")),
        ("--student_layers 0 x", ("--student_layers", "x")),
        ("--student_layers", ("--student_layers",)),
        ("--restrict_ce_to_mask yes", ("--restrict_ce_to_mask", "yes", "true", "false")),
        ("--precision fp8", ("--precision", "fp8", "bf16")),
        ("--max_steps 0", ("max_steps is 0",)),
        ("--max_steps -5", ("max_steps is -5",)),
        ("--recipe", ("--recipe",)),
        ("--recipe quickstrat", ("quickstrat", "did you mean quickstart")),
        ("--temperature 0", ("temperature is 0",)),
        ("--batch_size 7 --micro_batch_size 2", ("batch_size 7",)),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_it(arguments, said):
    message = refusal(*arguments.split())
    for text in said:
        assert text in message


# --- help ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", shipped_recipes())
def test_help_lists_every_field_with_the_recipes_value(name, capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["--recipe", name, "--help"], "what it is for")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "what it is for" in text
    recipe = Recipe.load(name)
    for table, group in GROUPS.items():
        assert f"{table} (recipe {name})" in text
        for field in dataclasses.fields(group):
            now = getattr(getattr(recipe, table), field.name)
            now = " ".join(map(str, now)) if isinstance(now, tuple) else str(now)
            # The first option of this name that is followed by its help: usage lists names without any.
            shown = re.search(rf"--{field.name} [^-]\S*(?: \[\S+ \.\.\.\])? {re.escape(field.metadata['help'])}"
                              + (rf" \(default: {re.escape(now)}\)" if now else ""), text)  # fmt: skip
            assert shown, f"{field.name} with {now}"
    for field in dataclasses.fields(Options):
        assert f"--{field.name} " in text
    assert "local_rank" not in text  # the launcher's, not a person's


# --- before the heavy libraries ------------------------------------------------------------------------------------


def python(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_options_load_no_heavy_library():
    code = "import sys, distil.options, distil.placement; distil.options.parse(['--lr', '1'], ''); print(*sys.modules)"
    loaded = set(python("-c", code).stdout.split())
    assert "distil.options" in loaded
    assert not loaded & {"torch", "numpy", "transformers", "deepspeed", "datasets"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("suite --model m --max_step 3", "unknown option --max_step (did you mean --max_steps?)"),
        ("suite --model m --max_steps -1", "max_steps is -1; it must be above 0"),
        ("suite --model m --max_hours 0", "max_hours is 0.0; it must be above 0"),
        ("speed --modle m", "unknown option --modle (did you mean --model?)"),
        ("speed --ways plain", "unknown option --ways"),  # which is another command's
    ],
)
def test_a_mistake_in_what_follows_a_command_is_one_line(arguments, said):
    result = python("launch/evaluate.py", *arguments.split())
    assert result.returncode == 78 and result.stdout == ""
    assert result.stderr.startswith(f"error: {said}") and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--temprature", "3"], "--temperature"), (["--deepspeed", "no/where.json"], "no/where.json")],
)
def test_the_program_ends_with_one_line_and_its_code(arguments, said):
    result = python("launch/pretrain.py", *arguments)
    assert result.returncode == 78 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and said in result.stderr


def test_the_program_has_help():
    result = python("launch/pretrain.py", "--help")
    assert result.returncode == 0 and "--student_layers" in result.stdout and result.stderr == ""
