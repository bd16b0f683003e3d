"""launch/finetune.py as a user starts it: every kind of task, resumed, on several ranks, and what it leaves."""

from __future__ import annotations

import json
import signal
import subprocess

import numpy as np
import pytest
import torch
import transformers
from harness import CLOCKED, ROOT, Started, command, environment, make_teacher, scalars, start_and_kill, tags
from safetensors.torch import load_file
from sets import reviews, write_csv, write_squad

from distil.tasks.columns import read_columns

PROGRAM = "launch/finetune.py"


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    """A random BERT, a smaller one of the same words, reviews as CSV and questions in SQuAD's layout."""
    folder = tmp_path_factory.mktemp("finetuning")
    make_teacher(folder / "bert")
    make_teacher(folder / "small", layers=2)
    write_csv(folder / "train.csv", reviews(400, 1))
    write_csv(folder / "validation.csv", reviews(200, 2))
    write_squad(folder / "train-v1.1.json", 300, 1)
    write_squad(folder / "dev-v1.1.json", 100, 2)
    return folder


def numbers(material, out, model="bert", **given):
    """The arguments of a run on the reviews."""
    named = {
        "train": material / "train.csv", "validation": material / "validation.csv", "model": model and material / model,
        "output_dir": out, "lr": 3e-3, "epochs": 6, "max_length": 32, "log_every": 1, "precision": "fp32",
    } | given  # fmt: skip
    return [word for name, value in named.items() if value is not None for word in (f"--{name}", str(value))]


def finetune(ranks, *arguments, code=0) -> subprocess.CompletedProcess[str]:
    line = command(ranks, *arguments, program=PROGRAM)
    result = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240)
    assert result.returncode == code, f"{result.args}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result


@pytest.fixture(scope="session")
def fitted(material):
    """A teacher that is fitted to the reviews."""
    folder = material / "fitted"
    return folder, finetune(None, *numbers(material, folder, eval_every=40)).stdout


def results(run) -> dict:
    return json.loads((run / "results.json").read_text())


def test_it_learns_and_what_it_exports_says_the_same_in_transformers(material, fitted):
    run, out = fitted
    found = results(run)
    columns = read_columns(material / "validation.csv")
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "model")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
    inputs = tokenizer(list(columns.texts("text")), padding=True, return_tensors="pt")
    with torch.no_grad():
        says = model(**inputs).logits.argmax(-1).tolist()
    right = np.mean([model.config.id2label[i] == label for i, label in zip(says, columns.column("label"), strict=True)])
    assert found["scores"] == {"validation": {"accuracy": right}} and right > 0.8
    assert found["judged"] == {"validation": 200} and found["train_examples"] == 400 and found["step"] == 75
    curve = scalars(run, "validation/accuracy")
    assert curve.keys() == {40, 75} and curve[75] == pytest.approx(right) and curve[40] <= right
    assert f"| this model | {100 * right:.2f}" in out and "local: text -> bad, good" in out
    card = (run / "model" / "README.md").read_text()
    assert f"{100 * right:.2f}" in card and "400 examples" in card
    assert {"loss/total", "loss/task", "loss_weighted/task", "score", "data/epoch"} <= tags(run)


def test_a_second_distillation_and_a_direct_one(material, fitted):
    teacher = fitted[0] / "model"
    out = finetune(None, *numbers(material, material / "second", "small", teacher=teacher)).stdout
    second = results(material / "second")
    assert "0.5 task + 0.5 KL, T = 2" in out and "| its teacher" in out and "| kept" in out
    assert second["teacher_scores"] == results(fitted[0])["scores"]  # in fp32 it is the exported model to the bit
    assert 0 < second["agreement"]["validation"] <= 1 and second["retention"] == pytest.approx(
        second["score"] / (100 * second["teacher_scores"]["validation"]["accuracy"])
    )
    assert {"loss/task", "loss/ce", "validation/agreement"} <= tags(material / "second")
    direct = numbers(material, material / "direct", teacher=teacher, model=None, student_depth=2)
    out = finetune(None, *direct).stdout
    assert "5 task + 1 KL + 2 COS, T = 2" in out and "layers 0 3 of the teacher" in out
    config = transformers.AutoConfig.from_pretrained(material / "direct" / "model")
    assert config.num_hidden_layers == 2 and results(material / "direct")["score"] > 80
    assert {"loss/task", "loss/ce", "loss/cos"} <= tags(material / "direct")


def test_a_teacher_that_is_only_stood_beside_is_judged_as_well(material, fitted, tmp_path):
    given = {"teacher": fitted[0] / "model", "alpha_task": 1, "alpha_ce": 0, "max_steps": 2}
    finetune(None, *numbers(material, tmp_path / "run", "small", **given))
    assert results(tmp_path / "run")["teacher_scores"] == results(fitted[0])["scores"]


def test_stopped_in_the_last_evaluation_it_has_all_steps(material, tmp_path):
    many = write_csv(tmp_path / "many.csv", reviews(40_000, 5))
    arguments = numbers(material, tmp_path / "run", validation=many, max_steps=3)
    last = tmp_path / "run" / "checkpoints" / "step-00000003"
    with Started(command(None, *arguments, program=PROGRAM), tmp_path / "log") as run:
        run.wait_for(last.exists)
        run.process.send_signal(signal.SIGUSR1)
        assert run.process.wait(60) == 75
    assert "SIGUSR1 received; saved at step 3" in (tmp_path / "log").read_text()
    assert not (tmp_path / "run" / "results.json").exists()
    finetune(None, *arguments)
    found = results(tmp_path / "run")
    assert found["judged"] == {"validation": 40_000} and found["from_step"] == found["step"] == 3


@pytest.mark.parametrize(
    ("config", "ranks", "precision"),
    [("zero1.json", None, "bf16"), pytest.param("zero3.json", 2, "fp32", marks=pytest.mark.faults)],
)
def test_kill_and_resume_is_bitwise(material, fitted, tmp_path, config, ranks, precision):
    def arguments(out):
        more = {"teacher": fitted[0] / "model", "deepspeed": f"ds_config/{config}", "precision": precision}
        return numbers(material, out, "small", save_every=5, eval_every=10, **more)

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finetune(ranks, *arguments(whole))
    mark = broken / "checkpoints" / "step-00000010"
    line = command(ranks, *arguments(broken), program=PROGRAM)
    start_and_kill(mark.exists, line, log=tmp_path / "log")
    assert "resuming from" in finetune(ranks, *arguments(broken)).stdout
    for tag in tags(whole) - CLOCKED:
        assert scalars(broken, tag) == scalars(whole, tag), tag
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (broken, whole))
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
    clocked = {"seconds", "from_step"}
    one, other = ({k: v for k, v in results(run).items() if k not in clocked} for run in (broken, whole))
    assert one == other
    assert "already done" in finetune(ranks, *arguments(broken)).stdout


def test_two_ranks_train_as_one(material, fitted, tmp_path):
    """In fp32 sums of the same terms in another order: 1e-4 of a loss, as between ranks in training on text."""
    finetune(2, *numbers(material, tmp_path / "two", max_steps=20))
    one, two = scalars(fitted[0], "loss/total"), scalars(tmp_path / "two", "loss/total")
    assert two == {step: pytest.approx(one[step], rel=1e-4) for step in range(1, 21)}
    assert sum(results(tmp_path / "two")["judged"].values()) == 200


def test_questions_by_windows(material):
    out = material / "questions"
    given = {"train": None, "validation": None, "task": "squad", "data": material, "stride": 8, "max_length": 30}
    finetune(None, *numbers(material, out, epochs=2, **given))
    found = results(out)
    assert set(found["scores"]["validation"]) == {"exact_match", "f1"} and found["judged"] == {"validation": 100}
    model = transformers.AutoModelForQuestionAnswering.from_pretrained(out / "model")
    assert model.config.finetuning_task == "squad"


def test_values(material, tmp_path):
    rows = [(text, str(len(text.split()))) for text, _ in reviews(300, 4)]
    train = write_csv(tmp_path / "train.csv", rows[:200], "words,count")
    validation = write_csv(tmp_path / "validation.csv", rows[200:], "words,count")
    given = {"train": train, "validation": validation, "text_columns": "words", "label_column": "count"}
    finetune(None, *numbers(material, tmp_path / "run", regression="true", epochs=12, **given))
    assert results(tmp_path / "run")["scores"]["validation"]["pearson"] > 0.5


def test_a_plan_alone_writes_nothing(material, tmp_path):
    out = finetune(None, *numbers(material, tmp_path / "run"), "--dry_run").stdout
    assert "75 steps = 6.00 epochs" in out and not (tmp_path / "run").exists()
