"""A tiny suite of tasks, made on the spot, and a way to start the real program on it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness import ROOT, command, environment, make_teacher
from sets import reviews

PROGRAM = "launch/evaluate.py"
NUMBERS = {
    "lr": 3e-3, "epochs": 2, "max_length": 32, "log_every": 1, "save_every": 1, "precision": "fp32", "batch_size": 8,
    "micro_batch_size": 4,
}  # fmt: skip
TASKS = ("sst2", "rotten-tomatoes")


def write_tsv(path: Path, count: int, seed: int, column: str) -> None:
    """So many texts with their labels as numbers."""
    rows = [f"{text}\t{int(label == 'good')}" for text, label in reviews(count, seed)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([f"{column}\tlabel", *rows]) + "\n")


def make_material(folder: Path) -> Path:
    """A random BERT, a smaller one, a task as GLUE's folder has it, and one with a file for each split."""
    make_teacher(folder / "bert")
    make_teacher(folder / "small", layers=2)
    write_tsv(folder / "data" / "SST-2" / "train.tsv", 48, 1, "sentence")
    write_tsv(folder / "data" / "SST-2" / "dev.tsv", 40, 2, "sentence")
    for seed, (split, count) in enumerate({"train": 48, "validation": 32, "test": 40}.items(), 3):
        write_tsv(folder / "data" / f"{split}.tsv", count, seed, "text")
    return folder


def words(**given: object) -> list[str]:
    """Options of a command line."""
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def arguments(material: Path, folder: Path, **given: object) -> list[str]:
    """A command of evaluate.py and its options: of both tasks, with one seed, beside a teacher."""
    named = {
        "model": material / "small", "teacher": material / "bert", "data": material / "data", "tasks": ",".join(TASKS),
        "seeds": 1, "output_dir": folder,
    } | NUMBERS | given  # fmt: skip
    return ["suite", *words(**named)]


def suite(ranks: int | None, *line: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Start the program, on one rank without the launcher; it must end with this code."""
    line = command(ranks, *line, program=PROGRAM)
    result = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=400)
    assert result.returncode == code, f"{result.args}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result
