"""The command line of fine-tuning: every number by its name, defaults that fit, mistakes in one line."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

import distil
from distil.errors import ConfigError
from distil.finetuning.options import DIRECT, GROUPS, PLAIN, SECOND, FineTuning, parse
from distil.options import Placing

ROOT = Path(distil.__file__).parents[1]
TASK = ("--task", "sst2")

# A valid value of each field that is not its default, as typed; those of a student only where no model is given.
CHANGED = {
    "task": "rte", "data": "d", "train": "a.csv", "validation": "b.csv", "test": "c.csv", "text_columns": "title body",
    "label_column": "topic", "regression": "true", "model": "m", "teacher": "t", "student": "distilbert",
    "student_depth": "2", "student_layers": "0 3", "initial_weights": "random",
    "dropout": "0.25", "temperature": "3.5", "alpha_task": "0.25",
    "alpha_ce": "0.75", "alpha_cos": "0.125", "max_length": "77", "stride": "9",
    "batch_size": "16", "micro_batch_size": "4",
    "train_examples": "7", "validation_examples": "5", "lr": "1e-3", "adam_beta1": "0.5", "adam_beta2": "0.75",
    "adam_eps": "1e-3", "weight_decay": "0.5", "warmup_fraction": "0.5", "max_grad_norm": "0.5", "epochs": "7",
    "steps": "77", "seed": "7", "log_every": "7", "eval_every": "7", "save_every": "7", "keep_checkpoints": "7",
    "max_bad_steps": "7", "spike_factor": "3.5", "silence_seconds": "33.5", "hang_seconds": "44.5",
}  # fmt: skip
# What else a field needs beside it to be valid, and what may not be there.
BESIDE = {
    "validation": ("--train", "a"), "test": ("--train", "a"), "student": ("--teacher", "t"),
    "student_depth": ("--teacher", "t"), "student_layers": ("--teacher", "t"), "initial_weights": ("--teacher", "t"),
    "dropout": ("--teacher", "t"), "alpha_ce": ("--teacher", "t"), "alpha_cos": ("--teacher", "t"),
}  # fmt: skip


def values(numbers: FineTuning) -> dict[str, object]:
    return {name: value for group in GROUPS for name, value in vars(getattr(numbers, group)).items()}


def parsed(*arguments: str) -> FineTuning:
    return parse(arguments, "d")[1]


def test_every_number_is_listed_here():
    assert set(CHANGED) == {f.name for group in GROUPS.values() for f in dataclasses.fields(group)}


@pytest.mark.parametrize("name", CHANGED)
def test_every_number_can_be_given(name):
    of_student = ("student", "student_depth", "student_layers", "initial_weights", "dropout")
    start = () if name in (*of_student, "model") else ("--model", "m")
    start += () if name in ("task", "data", "train", "validation", "test", "regression") else TASK
    start += TASK if name == "data" else ("--train", "a") if name == "regression" else ()
    if name == "model":
        start = (*TASK, "--teacher", "t")
    beside = (*start, *BESIDE.get(name, ()))
    given = values(parsed(*beside, f"--{name}", *CHANGED[name].split()))
    without = values(parsed(*beside)) if name not in ("task", "train") else values(parsed(*TASK, *beside))
    changed = {key for key in given if given[key] != without[key]}
    loss = {"alpha_task", "alpha_ce", "alpha_cos"}
    assert name in changed and changed <= {name, "task"} | (loss if name in ("model", "teacher") else set())


def test_the_loss_follows_from_what_is_there():
    for arguments, weights in (
        (("--model", "m"), PLAIN),
        (("--model", "m", "--teacher", "t"), SECOND),
        (("--teacher", "t", "--student_depth", "2"), DIRECT),
    ):
        loss = parsed(*TASK, *arguments).loss
        assert {name: getattr(loss, name) for name in weights} == weights
    assert parsed(*TASK, "--model", "m", "--teacher", "t", "--alpha_cos", "1").loss.alpha_ce == SECOND["alpha_ce"]


def test_where_a_run_is_placed():
    placing, _ = parse([*TASK, "--model", "m", "--deepspeed", "d.json", "--max_steps", "3", "--dry_run"], "d")
    assert placing == Placing(deepspeed="d.json", max_steps=3, dry_run=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "give --task NAME, or --train"),
        (TASK, "give --model DIR_OR_NAME, or --teacher"),
        ((*TASK, "--model", "m", "--student_depth", "2"), "student_depth is for a student cut from the teacher"),
        ((*TASK, "--model", "m", "--student", "bert"), "student is for a student cut from the teacher"),
        ((*TASK, "--model", "m", "--dropout", "0.2"), "dropout is for a student cut from the teacher"),
        ((*TASK, "--model", "m", "--alpha_ce", "1"), "there is none; give --teacher"),
        ((*TASK, "--model", "m", "--batch_size", "10"), "batch_size 10 is not a multiple of micro_batch_size 8"),
        ((*TASK, "--model", "m", "--modle", "m"), "did you mean --model?"),
        ((*TASK, "--model", "m", "--lr", "0"), "lr is 0.0; it must be above 0"),
        ((*TASK, "--model", "m", "--alpha_task", "0"), "alpha_task and alpha_ce are 0"),
        ((*TASK, "--model", "m", "--max_steps", "0"), "max_steps is 0"),
        ((*TASK, "--model", "m", "--data", "d", "--train", "a"), "data is d, but files are named, too"),
        ((*TASK, "--model", "m", "--train_examples", "-1"), "train_examples is -1"),
        ((*TASK, "--model", "m", "--regression", "true"), "says itself what its labels are"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(arguments, said):
    with pytest.raises(ConfigError) as caught:
        parse(arguments, "d")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_where_things_lie_is_no_part_of_the_numbers():
    def numbers(*more: str) -> dict:
        return parsed(*TASK, *more).numbers()

    assert numbers("--model", "here", "--data", "a") == numbers("--model", "there", "--data", "b")
    assert numbers("--model", "m") != numbers("--model", "m", "--seed", "9")
    assert numbers("--teacher", "t", "--student_depth", "2") != numbers("--teacher", "t", "--student_depth", "3")


def test_mistakes_are_found_before_heavy_libraries_load():
    program = "import sys; from distil.finetuning import options; print({'torch', 'transformers'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
