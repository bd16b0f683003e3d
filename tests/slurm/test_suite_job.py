"""A suite submitted as an array: its elements share the runs, and whichever is done last makes the table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from jobs import Site
from sets import reviews

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def write_tsv(path: Path, count: int, seed: int) -> None:
    rows = [f"{text}\t{int(label == 'good')}" for text, label in reviews(count, seed)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["sentence\tlabel", *rows]) + "\n")


def test_an_array_requeues_its_elements_and_leaves_the_table(site: Site, tmp_path: Path) -> None:
    cluster, out = site.cluster, tmp_path / "suite"
    for seed, split in enumerate(("train", "dev")):
        write_tsv(tmp_path / "data" / "SST-2" / f"{split}.tsv", 400, seed)
    arguments = [
        "--model", site.material.teacher, "--data", tmp_path / "data", "--tasks", "sst2", "--seeds", 4,
        "--output_dir", out, "--max_length", 32, "--save_every", 5, "--epochs", 12,
    ]  # fmt: skip
    job = site.submit("slurm/finetune_glue.sh", ["--array=0-1"], arguments, tmp_path / "log-%a")
    elements = [f"{job}_{number}" for number in (0, 1)]

    def made(seed: int) -> list[Path]:
        run = out / "sst2" / f"student-seed{seed}"
        return [*(run / "checkpoints").glob("step-*"), *run.glob("results.json")]

    cluster.until(lambda: made(1) and made(2), "both elements make steps", 180)
    cluster.run("scancel", "--batch", "--signal=USR1", elements[1])  # as near the wall time
    cluster.until(lambda: cluster.job(elements[1]).get("Restarts") == "1", "one element has requeued itself", 120)
    for number, element in enumerate(elements):
        ended = cluster.ended(element, 300)
        log = (tmp_path / f"log-{number}").read_text()
        assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), log
        assert ended["Restarts"] == str(number), log  # the other one has gone on undisturbed
        assert f"job {element}: start 1 on " in log and f"share {number} of 2: 2 runs" in log
    logs = [(tmp_path / f"log-{number}").read_text() for number in (0, 1)]
    assert "goes on by itself: requeued" in logs[1] and "requeued" not in logs[0]
    assert sum("| macro-score" in log for log in logs) >= 1
    numbers = json.loads((out / "suite.json").read_text())
    assert [(run["label"], run["seed"]) for run in numbers["runs"]] == [("student", seed) for seed in (1, 2, 3, 4)]
    assert numbers["table"][0]["tasks"]["sst2"]["count"] == 4 and (out / "suite.md").exists()
    assert not list(site.checkout.glob("*.stop"))
