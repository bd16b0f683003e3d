"""launch/evaluate.py guess and speed: what they print and leave, and one line for what they cannot do."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image

from distil import errors
from distil.exhibit import Exhibit, figures_file, read_all
from distil.models.loading import load_config, weights_fingerprint

ROOT = Path(__file__).parents[2]
TEXT = "ba be [MASK] bi."
QUICK = ("--forms", "fp32", "--sequences", "4", "--batches", "2", "--threads", "1")


@pytest.fixture
def program(monkeypatch, capsys):
    """Runs the program in this process: exit code, standard output, standard error."""
    spec = importlib.util.spec_from_file_location("evaluate", ROOT / "launch" / "evaluate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["launch/evaluate.py", *map(str, arguments)])
        code = errors.run(module.main)
        return code, *capsys.readouterr()

    yield run
    torch.set_num_threads(threads)


@pytest.fixture
def pair(folder_of):
    """Arguments for a student and its teacher."""
    return "--model", folder_of("distilbert", num_hidden_layers=2), "--teacher", folder_of("bert")


@pytest.fixture
def run_folder(folder_of, tmp_path):
    """A pretraining run's folder, as far as an evaluation reads it."""
    run, teacher = tmp_path / "run", str(folder_of("bert"))
    shutil.copytree(folder_of("distilbert"), run / "student")
    weights = weights_fingerprint(teacher, load_config(teacher))
    loss = {"temperature": 2.0, "alpha_ce": 5.0, "alpha_cos": 1.0}
    identity = {"mathematics": {"model": {"teacher": teacher}, "loss": loss}, "teacher": weights}
    (run / "run.json").write_text(json.dumps(identity))
    return run


def test_guess_prints_a_plain_table_where_there_is_no_terminal(program, pair):
    code, out, err = program("guess", TEXT, *pair, "--top", 3)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "ba be ____ bi."
    assert [cell.strip() for cell in lines[2].split("|")[2:-1:3]] == ["teacher", "student"]
    assert [line.split("|")[1].strip() for line in lines[4:8]] == ["1", "2", "3", "rest"]


def test_guess_writes_a_picture_and_an_exhibit(program, pair, tmp_path):
    code, out, _ = program("guess", TEXT, *pair, "--png", tmp_path / "a" / "g.png", "--out", tmp_path / "b")
    assert code == 0 and str(tmp_path / "a" / "g.png") in out
    assert Image.open(tmp_path / "a" / "g.png").format == "PNG"
    exhibit = Exhibit.read(tmp_path / "b" / "evaluations" / "guess.json")
    assert len(exhibit.rows) == 21 and exhibit.images[0].png == (tmp_path / "a" / "g.png").read_bytes()
    assert exhibit.command.startswith(f"launch/evaluate.py guess '{TEXT}' --model ")


def test_guess_of_a_run_finds_its_models_and_its_folder(program, run_folder, folder_of):
    code, out, _ = program("guess", "--run", run_folder, "--top", 2)
    assert code == 0 and out.startswith("I think this is the beginning of a beautiful ____.")
    assert list(read_all(run_folder)) == ["guess"]
    _, there, _ = program("guess", "--model", run_folder / "student", "--teacher", folder_of("bert"), "--top", 2)
    assert there == out[: len(there)]


def test_guess_says_who_saw_less_of_the_text(program, folder_of, tmp_path):
    pair = ("--model", folder_of("gpt2"), "--teacher", folder_of("bert"))
    code, out, _ = program("guess", "ba be [MASK] bi.", *pair, "--top", 1, "--out", tmp_path / "o")
    assert code == 0 and out.startswith("ba be ____ bi.\n(student saw only: ba be ____)\n\n")
    assert "ba be ____ bi. (student saw only: ba be ____)" in read_all(tmp_path / "o")["guess"].note
    assert "saw only" not in program("guess", "ba be [MASK]", *pair, "--top", 1)[1]


def test_guess_of_one_model(program, folder_of):
    code, out, _ = program("guess", "ba be", "--model", folder_of("gpt2"), "--top", 1)
    assert code == 0 and out.startswith("ba be ____") and "model" in out and "teacher" not in out


def test_speed_prints_and_leaves_its_figures(program, pair, tmp_path):
    how = ("--forms", "int8", "--sequences", 6, "--batches", 4, 2, "--threads", 1)
    code, out, err = program("speed", *pair, *how, "--out", tmp_path / "run")
    assert (code, err) == (0, "")
    names = [line.split("|")[1].strip() for line in out.splitlines() if line.startswith("| ")]
    rows = ["teacher fp32", "teacher int8", "student fp32", "student int8"]
    papers = ["paper: BERT-base", "paper: DistilBERT"]
    assert [name for name in names if name and not name.startswith("-")] == [
        *rows, *papers, "sequences/s, batches of", *rows
    ]  # fmt: skip
    figures = json.loads(figures_file(tmp_path / "run", "speed").read_text())
    assert figures["sequences"] == 6 and figures["threads"] == torch.get_num_threads() == 1
    assert [row["throughput"].keys() for row in figures["rows"]] == [{"2", "4"}] * 4
    assert list(read_all(tmp_path / "run")) == ["speed", "speed_throughput"]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["evaluations"]
    code, out, err = program("speed", *pair, *QUICK[:4], "--batches", "--out", tmp_path / "run")
    assert (code, err) == (0, "") and "sequences/s" not in out
    assert list(read_all(tmp_path / "run")) == ["speed"]  # no throughput of another time


def test_speed_of_a_run_on_a_text(program, run_folder, tmp_path):
    (tmp_path / "t.txt").write_text("ba be bi bo bu bab\n" * 8)
    code, out, _ = program("speed", "--run", run_folder, *QUICK, "--text", tmp_path / "t.txt")
    assert code == 0 and f"4 lines of {tmp_path / 't.txt'}, 8.0 tokens" in out
    rows = json.loads(figures_file(run_folder, "speed").read_text())["rows"]
    assert [row["model"] for row in rows] == ["teacher", "student"] and all(0 <= row["score"] <= 1 for row in rows)


def test_speed_on_a_task_is_scored_as_the_task_is(program, folder_of, tmp_path):
    (tmp_path / "SST-2").mkdir()
    lines = [f"{' '.join(['ba', 'be', 'bi', 'bo'][: 1 + i % 4])}\t{i % 2}" for i in range(12)]
    (tmp_path / "SST-2" / "dev.tsv").write_text("sentence\tlabel\n" + "\n".join(lines) + "\n")
    folder = folder_of("bert", "classes")
    what = ("--model", folder, "--task", "sst2", "--data", tmp_path)
    code, out, _ = program("speed", *what, "--forms", "fp32", "--batches", "--out", tmp_path / "o")
    assert code == 0 and "12 sequences of sst2" in out and "Score is accuracy" in out and "sequences/s" not in out
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    right = 0
    for line in lines:
        text, label = line.split("\t")
        with torch.no_grad():
            right += model(**tokenizer(text, return_tensors="pt")).logits.argmax().item() == int(label)
    assert json.loads(figures_file(tmp_path / "o", "speed").read_text())["rows"][0]["score"] == right / 12


MODEL = ("--model", "MODEL")
REFUSALS = [
    ((), 78, "COMMAND"),
    (("tell",), 78, "invalid choice: 'tell'"),
    (("guess", TEXT), 78, "give --run RUN_DIR or --model"),
    (("guess", TEXT, *MODEL, "--tpo", 3), 78, "--tpo"),
    (("guess", "ba be.", *MODEL), 78, "has no [MASK]"),
    (("guess", "", *MODEL), 78, "the text is empty"),
    (("guess", "ba [MASK] " * 30, *MODEL), 78, "40 positions"),
    (("guess", TEXT, *MODEL, "--top", 0), 78, "--top is 0"),
    (("guess", TEXT, "--model", "CLASSES"), 65, "without its head"),
    (("guess", TEXT, "--model", "BARE"), 65, "BARE"),
    (("guess", TEXT, "--model", "/no/such/folder"), 65, "/no/such/folder"),
    (("guess", TEXT, "--run", "TMP"), 65, "holds no run.json"),
    (("guess", TEXT, *MODEL, "--out", "FILE"), 65, "FILE cannot be written"),
    (("guess", TEXT, *MODEL, "--png", "TMP"), 65, "is a folder; name a file"),
    (("guess", TEXT, *MODEL, "--png", "FILE/g.png"), 65, "FILE/g.png cannot be written"),
    (("speed",), 78, "give --run RUN_DIR or --model"),
    (("speed", *MODEL, "--threads", 0), 78, "--threads has 0"),
    (("speed", *MODEL, "--batches", 4, -1), 78, "--batches has -1"),
    (("speed", *MODEL, "--sequences", 0), 78, "--sequences is 0"),
    (("speed", *MODEL, "--forms", "int4"), 78, "int4"),
    (("speed", *MODEL, "--text", "TMP/none.txt"), 65, "none.txt"),
    (("speed", *MODEL, "--text", "FILE", *QUICK), 65, "holds no text"),
    (("speed", *MODEL, "--text", "FILE", "--task", "sst2"), 78, "two sets"),
    (("speed", *MODEL, "--data", "TMP"), 78, "give --task"),
    (("speed", *MODEL, "--task", "sst3"), 78, "no task sst3"),
    (("speed", *MODEL, "--task", "sst2", "--data", "TMP"), 65, "launch/finetune.py --task sst2"),
    (("speed", "--model", "CLASSES", "--task", "sst2", "--data", "TMP"), 65, "holds no validation"),
    (("speed", "--model", "CLASSES", "--teacher", "MODEL"), 78, "give two models of one kind"),
    (("speed", "--model", "BARE", "--text", "TEXT", *QUICK), 65, "BARE"),
    (("speed", *MODEL, *QUICK, "--out", "FILE"), 65, "FILE cannot be written"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "said"), REFUSALS)
def test_what_cannot_be_done_is_said_in_one_line_and_leaves_nothing(
    program, folder_of, tmp_path, arguments, code, said
):
    bare = tmp_path / "BARE"
    shutil.copytree(folder_of("bert"), bare, ignore=shutil.ignore_patterns("tok*", "vocab*", "special*"))
    (tmp_path / "FILE").write_text("")
    (tmp_path / "TEXT").write_text("ba be\n")
    places = {"MODEL": folder_of("bert"), "CLASSES": folder_of("bert", "classes"), "TMP": tmp_path, "BARE": bare}
    places |= {name: tmp_path / name for name in ("FILE", "FILE/g.png", "TEXT")} | {
        "TMP/none.txt": tmp_path / "none.txt"
    }
    before = sorted(tmp_path.rglob("*"))
    found, out, err = program(*(places.get(word, word) for word in arguments))
    assert (found, err.count("\n")) == (code, 1), err
    assert err.startswith("error: ") and said in err
    assert sorted(tmp_path.rglob("*")) == before and "|" not in out


@pytest.mark.parametrize("arguments", [("guess", TEXT), ("speed", *QUICK)])
def test_a_place_that_turns_out_to_take_nothing_is_refused(program, folder_of, arguments):
    """In /proc nobody makes a folder, whatever its permissions say."""
    code, _, err = program(*arguments, "--model", folder_of("bert"), "--out", "/proc/nothing")
    assert code == 65 and "/proc/nothing" in err and "cannot be written" in err and err.count("\n") == 1


def test_a_folder_that_may_not_be_written_is_refused(program, folder_of, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK))  # root, as which tests may run, may
    code, _, err = program("guess", TEXT, "--model", folder_of("bert"), "--out", tmp_path / "run")
    assert code == 65 and f"no permission to write in {tmp_path}" in err and err.count("\n") == 1


@pytest.mark.parametrize("command", ["guess", "speed"])
def test_help_is_there_without_the_heavy_libraries(program, capsys, command):
    with pytest.raises(SystemExit) as left:
        program(command, "--help")
    assert left.value.code == 0 and "--run RUN_DIR" in capsys.readouterr().out
