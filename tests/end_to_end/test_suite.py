"""launch/evaluate.py suite as a user starts it: all ways on two tasks, killed, stopped, gone on with, in shares."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from harness import ROOT, Started, command, environment
from safetensors.torch import load_file
from suites import NUMBERS, PROGRAM, TASKS, arguments, make_material, suite, words

from distil.exhibit import read_all
from distil.models.loading import load_config, weights_fingerprint

CLOCKED = {"seconds", "from_step"}


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Path:
    return make_material(tmp_path_factory.mktemp("suite"))


def results(run: Path) -> dict:
    return {k: v for k, v in json.loads((run / "results.json").read_text()).items() if k not in CLOCKED}


@pytest.fixture(scope="module")
def whole(material) -> tuple[Path, list[str], str]:
    """A suite of all ways, killed in its third run and gone on with: folder, command line and what was printed."""
    out, report = material / "all", material / "report"
    line = arguments(material, out, ways="plain,second,direct", out=report)
    third = out / "sst2" / "second-seed1" / "checkpoints" / "step-00000003"
    with Started(command(None, *line, program=PROGRAM), material / "log") as run:
        run.wait_for(third.exists)  # and then SIGKILL
    assert (out / "sst2" / "student-seed1" / "results.json").exists()
    assert not (third.parents[1] / "results.json").exists() and not (out / "suite.md").exists()
    before = (out / "sst2" / "teacher-seed1" / "results.json").stat().st_mtime_ns
    printed = suite(None, *line).stdout
    assert (out / "sst2" / "teacher-seed1" / "results.json").stat().st_mtime_ns == before
    return out, line, printed


def test_killed_and_gone_on_with_its_runs_are_what_finetune_makes(material, whole, tmp_path):
    out, _, printed = whole
    assert "  2 of 8 runs are done in" in printed and "run 1 of 8" not in printed and "run 2 of 8" not in printed
    assert "run 3 of 8: sst2, second, seed 1" in printed and "resuming from" in printed
    assert "cut" not in printed.partition("run 4 of 8")[0] and "layers 0 3 of the teacher" in printed
    teacher = out / "sst2" / "teacher-seed1" / "model"
    given = {"task": "sst2", "data": material / "data", "model": material / "small", "teacher": teacher} | NUMBERS
    line = command(None, *words(**given, output_dir=tmp_path / "run"), program="launch/finetune.py")
    subprocess.run(line, cwd=ROOT, env=environment(), check=True, capture_output=True, timeout=240)
    member = out / "sst2" / "second-seed1"
    assert results(member) == results(tmp_path / "run")
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (member, tmp_path / "run"))
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
    assert (tmp_path / "run" / "checkpoints").exists() and not (member / "checkpoints").exists()


def test_the_table_is_in_the_terminal_the_folder_and_the_report(material, whole):
    out, line, printed = whole
    numbers = json.loads((out / "suite.json").read_text())
    table = {entry["label"]: entry for entry in numbers["table"]}
    assert list(table) == ["teacher", "student", "second", "direct"] and numbers["warnings"] == []
    for label, entry in table.items():
        scores = [results(out / task / f"{label}-seed1")["score"] for task in TASKS]
        assert [entry["tasks"][task]["median"] for task in TASKS] == scores and entry["macro"] == np.mean(scores)
        assert entry["kept"] == pytest.approx(entry["macro"] / table["teacher"]["macro"])
    assert [(run["task"], run["label"], run["seed"]) for run in numbers["runs"]][:2] == [
        ("sst2", "teacher", 1), ("sst2", "student", 1)
    ]  # fmt: skip
    document = (out / "suite.md").read_text(encoding="utf-8")
    for text in (
        "| student, distilled twice ",
        "| kept of the teacher ",
        "| paper: BERT-base ",
        "| student, fitted to sst2 ",
    ):
        assert text in document and text in printed
    assert "8 of 8 runs, " in document and "1 rank(s), fp32" in document
    shown = read_all(material / "report")
    assert list(shown) == ["suite", "suite_cross"] and shown["suite"].command in document
    assert shown["suite"].columns[1:4] == ("macro-score", *TASKS)


def test_the_matrix_is_what_transformers_say_of_the_other_tasks_text(material, whole):
    out, _, _ = whole
    cells = json.loads((out / "suite.json").read_text())["cross"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(material / "small")
    texts = {"sst2": material / "data" / "SST-2" / "dev.tsv", "rotten-tomatoes": material / "data" / "test.tsv"}
    assert list(cells) == ["student", "second", "direct"]
    for label, own in itertools.product(cells, TASKS):
        folder = out / own / f"{label}-seed1" / "model"
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
        for other, path in texts.items():
            rows = [line.split("\t") for line in path.read_text().splitlines()[1:]]
            inputs = tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")
            with torch.no_grad():
                says = model(**inputs).logits.argmax(-1).tolist()
            assert cells[label][own][other] == pytest.approx(
                100 * np.mean([i == int(label) for i, (_, label) in zip(says, rows, strict=True)])
            )
    kept = json.loads((out / "sst2" / "student-seed1" / "cross.json").read_text())
    assert set(kept["by_task"]) == set(TASKS)


def test_again_it_prints_the_same_tables_and_makes_nothing(whole):
    out, line, printed = whole
    files = {path: path.stat().st_mtime_ns for path in out.glob("*/*/*.json")}
    again = suite(None, *line).stdout
    assert "8 of 8 runs are done in" in again and "run 1 of" not in again
    assert again[again.index("| macro") :] == printed[printed.index("| macro") :]
    assert files == {path: path.stat().st_mtime_ns for path in out.glob("*/*/*.json")}


def test_a_smaller_command_takes_nothing_away(material, whole):
    """It names one task, one way and no teacher: all rows are there, and a run that it leaves out it names."""
    out, _, printed = whole
    begun = out / "sst2" / "student-seed7"
    begun.mkdir()
    shutil.copy(out / "sst2" / "student-seed1" / "run.json", begun)
    given = {"model": material / "small", "data": material / "data", "tasks": "sst2", "seeds": 1, "output_dir": out}
    smaller = suite(None, "suite", *words(**given, **NUMBERS)).stdout
    shutil.rmtree(begun)
    assert "  1 of 1 runs are done in" in smaller
    assert f"not in the table: {begun}: it is not finished\n" in smaller and smaller.count("not in the table") == 1
    assert smaller[smaller.index("| macro") :] == printed[printed.index("| macro") :]
    other = {"output_dir": out, "tasks": "sst2", "data": material / "data" / "SST-2"}
    refused = suite(None, *arguments(material, **{"folder": out} | other), code=78).stderr
    assert f"holds another run (data: {material / 'data'} there, " in refused and refused.count("\n") == 1


def test_of_a_run_it_takes_the_models_and_its_tables_go_to_its_page(material, tmp_path):
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(material / "small", run / "student")
    teacher = str(material / "bert")
    loss = {"temperature": 2.0, "alpha_ce": 5.0, "alpha_cos": 1.0}
    identity = {"mathematics": {"model": {"teacher": teacher}, "loss": loss}}
    (run / "run.json").write_text(
        json.dumps(identity | {"teacher": weights_fingerprint(teacher, load_config(teacher))})
    )
    given = {"run": run, "data": material / "data", "tasks": "sst2", "seeds": 1, "output_dir": out} | NUMBERS
    line = ["suite", *words(**given, steps=2)]
    (run / "evaluations").write_text("mine")
    failed = suite(None, *line, code=65)
    assert failed.stderr.startswith(f"error: {run / 'evaluations' / 'suite.json'} cannot be written: ")
    assert failed.stderr.count("\n") == 1 and failed.stdout.count("| macro-score") == 1 and (out / "suite.md").exists()
    (run / "evaluations").unlink()
    assert "  2 of 2 runs are done in" in suite(None, *line).stdout
    assert [row[0] for row in read_all(run)["suite"].rows[:2]] == ["teacher", "student"]
    models = json.loads((out / "suite.json").read_text())["models"]
    assert models == {"student": str(run / "student"), "teacher": teacher}


def test_shares_make_the_whole_and_a_stop_ends_one(material, tmp_path):
    out = tmp_path / "shares"
    out.mkdir()
    (out / "stop-0").touch()
    line = arguments(material, out, seeds=2, steps=3)
    stopped = suite(None, *line, "--only", "0/2", code=75)
    assert f"stopped: {out / 'stop-0'} is there" in stopped.stdout and list(out.iterdir()) == []
    first = suite(None, *line, "--only", "0/2").stdout
    assert "share 0 of 2: 4 runs, 4 to be made" in first and "4 runs are missing: " in first
    assert not (out / "suite.md").exists()
    assert {path.name for path in out.glob("*/*")} == {"teacher-seed1", "student-seed1"}
    second = suite(2, *line, "--only", "1/2").stdout  # the launcher puts a word of its own before the command's name
    assert "share 1 of 2: 4 runs, 4 to be made" in second and second.count("| macro-score") == 1
    assert "warning: runs are not made alike: ranks 1, but ranks 2: " in second
    assert "local_rank" not in (out / "suite.md").read_text(encoding="utf-8")
    # A smaller command takes nothing away, and other numbers are another suite.
    smaller = suite(None, *arguments(material, out, seeds=1, steps=3, tasks="sst2"), "--only", "1/2").stdout
    assert "share 1 of 2: 0 runs, 0 to be made" in smaller and " \u00b1 " in smaller
    assert "rotten-tomatoes" in smaller.partition("| teacher")[0] and "over 2 seeds" in smaller
    refused = suite(None, *arguments(material, out, seeds=1, steps=4), code=78)
    assert "holds another run (fine-tuning.optimizer.steps: 3 there, 4 here)" in refused.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tasks": "sst2,garden"}, "no task garden"),
        ({"ways": "twice"}, "no way twice"),
        ({"only": "2/2"}, "only is 2/2"),
        ({"seeds": 0}, "seeds is 0"),
        ({"lrr": 1}, "unknown option --lrr (did you mean --lr?)"),
        ({"max_steps": -1}, "max_steps is -1; it must be above 0"),
        ({"max_length": 65}, "give --max_length 64 or less"),
        ({"tasks": "sst2,squad"}, "train.tsv: no column question"),  # before sst2's first run
    ],
)
def test_a_mistake_ends_with_one_line_and_its_code(material, tmp_path, given, said):
    result = suite(None, *arguments(material, tmp_path / "out", **given), code=78)
    assert result.stdout == "" and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert said in result.stderr and not (tmp_path / "out").exists()


def test_a_folder_of_ones_own_is_left_alone(material, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(ROOT / "distil" / "recipes", mine)
    before = {path.name: path.read_bytes() for path in mine.iterdir()}
    refused = suite(None, *arguments(material, mine), code=78).stderr
    assert "which is no suite's" in refused and refused.count("\n") == 1
    assert before == {path.name: path.read_bytes() for path in mine.iterdir()}
