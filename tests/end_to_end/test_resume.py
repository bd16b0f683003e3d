"""Interrupted runs: after SIGKILL, at --max_steps, and in a folder that is somebody else's."""

from __future__ import annotations

import pytest
from harness import CLOCKED, Material, command, must_pretrain, pretrain, scalars, start_and_kill, tags
from safetensors.torch import load_file


def arguments(material: Material, out, config: str):
    return ("--recipe", material.recipe, "--deepspeed", f"ds_config/{config}", "--output_dir", out)


@pytest.mark.parametrize(
    ("config", "ranks", "precision", "weights"),
    [
        pytest.param("zero1.json", 2, "bf16", None, marks=pytest.mark.faults),
        ("zero0.json", None, "fp32", (0.7, 0.3)),
        pytest.param("zero3.json", 2, "fp16", None, marks=pytest.mark.faults),
    ],
)
def test_kill_and_resume_is_bitwise(material, tmp_path, config, ranks, precision, weights):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    stores = [f"{s}:{w}" for s, w in zip((material.store, material.other), weights or (), strict=False)]
    more = (*(("--store", *stores) if stores else ()), "--precision", precision, "--max_steps")
    must_pretrain(ranks, *arguments(material, whole, config), *more, 30)
    mark = broken / "checkpoints" / "step-00000010"
    line = command(ranks, *arguments(material, broken, config), *more, 100)
    start_and_kill(mark.exists, line, log=tmp_path / "log")
    out = must_pretrain(ranks, *arguments(material, broken, config), *more, 30)
    assert "resuming from" in out
    for tag in tags(whole) - CLOCKED:
        assert scalars(broken, tag) == scalars(whole, tag), tag  # dropout 0.1 included: nothing depends on the past
    ours, theirs = (load_file(run / "student" / "model.safetensors") for run in (broken, whole))
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)


def test_max_steps_goes_on_as_if_it_had_not_stopped(material, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    must_pretrain(None, *arguments(material, whole, "zero1.json"), "--max_steps", 8)
    must_pretrain(None, *arguments(material, parts, "zero1.json"), "--max_steps", 3)
    must_pretrain(None, *arguments(material, parts, "zero1.json"), "--max_steps", 8)
    assert scalars(parts, "loss/total") == scalars(whole, "loss/total")
    assert scalars(parts, "optimizer/lr") == scalars(whole, "optimizer/lr")
    out = must_pretrain(None, *arguments(material, parts, "zero1.json"), "--max_steps", 8)
    assert "already done" in out and "student after" in out


def test_another_recipe_in_the_folder_is_refused(material, tmp_path):
    must_pretrain(None, *arguments(material, tmp_path / "run", "zero1.json"), "--max_steps", 2)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    result = pretrain(None, *arguments(material, tmp_path / "run", "zero1.json"), "--max_steps", 4, "--lr", "1e-3")
    assert result.returncode == 78
    assert result.stderr.startswith("error: output directory") and result.stderr.count("\n") == 1
    assert "optimizer.lr: 0.002 there, 0.001 here" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
