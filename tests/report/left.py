"""A run's folder as a run leaves it, without the run: identity, results, event files by the monitor itself."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from distil.exhibit import PNG, Exhibit, Image
from distil.finetuning.results import TaskResults
from distil.monitor import Monitor
from distil.report.events import Curve
from distil.report.record import Record

IDENTITY = {
    "recipe": "mine",
    "mathematics": {
        "model": {"teacher": "recipe:fitted", "student_layers": [0, 2]},
        "loss": {"alpha_ce": 5.0, "temperature": 2.0},
        "data": {"store": ["sample:texts", "data/books:0.3"]},
    },
    "teacher": "d157fb2037e8f3b3",
}
COLUMNS = ("name", "accuracy", "perplexity", "agreement", "parameters", "milliseconds")
ROWS = [
    ("teacher", 0.5, 20.0, 1.0, 3_000_000, 9.0),
    ("student before", 0.1, 400.0, 0.2, 2_000_000, 6.0),
    ("student after", 0.4, 30.0, 0.8, 2_000_000, 6.0),
]
RESULTS = {"step": 20, "predicted": 400, "rows": [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]}
PLAN = """\
  recipe          mine: 5 CE + 1 COS, T = 2
  teacher         .cache/fitted/student, 4 layers of width 32 (4 heads, feed-forward 64), 3.0 M parameters
  student         distilbert of layers 0 2, 2 layers of width 32 (4 heads, feed-forward 64), 2.0 M parameters
  text            600 sequences, 9,000 tokens in .cache/texts, budget 99.0% filled, 70.0% of the micro-batches
                  300 sequences, 4,000 tokens in data/books, budget 98.0% filled, 30.0% of the micro-batches
  schedule        1,200 steps = 2.00 epochs of 20 micro-batches, about 18,000 tokens; this run stops at 20"""
TASK_PLAN = """\
  task            imdb: text -> negative, positive
  loss            0.5 task + 0.5 KL, T = 2
  teacher         runs/t/model, 4 layers of width 32 (4 heads, feed-forward 64), 3.0 M parameters
  model           runs/a, b/student, 2 layers of width 32 (4 heads, feed-forward 64), 2.0 M parameters; its head is new: classifier
  judged on       50 examples of test"""  # noqa: E501
FINE_TUNED = {
    "fine-tuning": {"task": "imdb", "student": {}, "loss": {"alpha_task": 0.5, "alpha_ce": 0.5}, "data": {}},
    "tokenizer": "d157fb2037e8f3b3",
}
CURVES = {"loss/total": [9.0, 8.0], "data/tokens": [50.0, 100.0], "heldout/mlm_accuracy": [0.1, 0.25]}
TEXTS = {
    "recipe": {"name": "mine"},
    "ds_config": {"path": "ds_config/zero1.json", "ranks": 2, "config": {
        "bf16": {"enabled": True}, "zero_optimization": {"stage": 1}}},
    "versions": {"git": "0123456789abcdef+", "distil": "0.1.0", "device": "a machine"},
    "plan": PLAN,
}  # fmt: skip


def leave(folder: Path, identity: dict[str, Any] = IDENTITY, results: dict[str, Any] | None = RESULTS) -> Path:
    """A run's folder without event files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(identity))
    if results is not None:
        (folder / "results.json").write_text(json.dumps(results))
    return folder


def report(folder: Path, steps: range, scalars: dict[str, Any], texts: dict[str, Any] = TEXTS) -> Path:
    """Event files of one process that made these steps; ``scalars`` are functions of the step."""
    monitor = Monitor(folder / "tensorboard", "mine", steps.start - 1, 0, steps.stop, True)
    monitor.texts(texts)
    for step in steps:
        monitor.scalars({tag: value(step) for tag, value in scalars.items()}, step, 100 * step)
    monitor.close()
    return folder


def recorded(curves: dict[str, Any], **others: Any) -> Record:
    """A record of curves given by their values at steps from 1."""
    made = {tag: Curve(np.arange(1, len(v) + 1), np.asarray(v, dtype=float)) for tag, v in curves.items()}
    empty = {"identity": IDENTITY, "results": None, "texts": {}, "sessions": (), "exhibits": {}}
    return Record(**({"folder": Path("runs/mine"), "curves": made} | empty | others))


def png(width: int, height: int) -> bytes:
    """A grey image."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + bytes([120]) * width for _ in range(height))
    return PNG + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def leave_evaluations(run: Path) -> None:
    """A table that is wider than a phone and an image that is, too."""
    tasks = ("CoLA", "MNLI", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI", "macro-score", "retention")
    wide = Exhibit(
        title="GLUE, medians of 3 seeds", note="The paper's figures are of another text.", columns=("model", *tasks),
        rows=(("teacher", *["79.5 ± 0.3"] * 10, ""), ("student", *["77.0 ± 0.4"] * 10, "96.9 %")),
        command=f"launch/evaluate.py suite --model {run}/student --teacher runs/a-teacher/student --seeds 3",
    )  # fmt: skip
    wide.write(run, "suite")
    guesses = Exhibit(title="Guesses", images=(Image(caption="the twenty likeliest", png=png(1200, 300)),))
    guesses.write(run, "guess")


def texts(**others: str) -> dict[str, str]:
    """Texts as they are read."""
    return {"plan": PLAN, "versions": '{"git": "0123456789abcdef+", "device": "a machine", "torch": "2.13.0"}'} | others


def run(**others: Any) -> Record:
    """A record of a short run."""
    return recorded(others.pop("curves", CURVES), texts=others.pop("texts", texts()), **others)


def task_results(**others: Any) -> TaskResults:
    """What a fine-tuning came to."""
    values = {
        "task": "imdb", "kind": "classification", "step": 20, "scores": {"test": {"accuracy": 0.8, "f1": 0.85}},
        "teacher_scores": {"test": {"accuracy": 0.84, "f1": 0.86}}, "agreement": {"test": 0.9}, "judged": {"test": 50},
        "train_examples": 100, "parameters": 2_000_000, "teacher_parameters": 3_000_000, "seconds": 125.0,
        "from_step": 0, "paper": {"student": (92.82,)},
    }  # fmt: skip
    return TaskResults(**values | others)
