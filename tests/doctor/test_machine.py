"""What doctor says of this machine and of lesser ones."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from distil.doctor import machine
from distil.doctor.finding import FAIL, OK, WARN
from distil.doctor.machine import examine
from distil.kernels.paths import using
from distil.kernels.rows import TorchKernels


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "launch/doctor.py"]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, timeout=300)


def test_this_machine():
    result = run()
    lines = result.stdout.splitlines()
    assert result.returncode == 0, result.stdout + result.stderr
    assert all(line.split()[0] in (OK, WARN) for line in lines)
    said = {line[5:21].strip(): line for line in lines}
    assert torch.__version__ in said["torch"]
    assert "kernel (" in said["loss on cpu"] and "from the definition" in said["loss on cpu"]
    assert "cpu_adam" in said


def test_without_a_compiler(tmp_path):
    result = run(PATH=str(tmp_path), CXX="", DISTIL_CACHE=str(tmp_path))
    lines = {line[5:21].strip(): line for line in result.stdout.splitlines()}
    assert result.returncode == 0 and lines["C++ compiler"].startswith(WARN) and "apt-get" in lines["C++ compiler"]
    assert lines["loss on cpu"].startswith(WARN) and "torch (no C++ compiler)" in lines["loss on cpu"]


def test_a_path_that_cannot_be_fails_with_one_line(tmp_path):
    result = run(PATH=str(tmp_path), CXX="", DISTIL_CACHE=str(tmp_path), DISTIL_LOSS="kernel")
    failed = [line for line in result.stdout.splitlines() if line.startswith(FAIL)]
    assert result.returncode == 78 and len(failed) == 1 and "DISTIL_LOSS=torch" in failed[0]
    assert "Traceback" not in result.stderr


class Wrong(TorchKernels):
    """Kernels that a broken compiler might have made."""

    def loss_rows_(self, student_RV, *others):
        values = super().loss_rows_(student_RV, *others)
        student_RV *= 1.001
        return values


def test_kernels_that_compute_something_else_are_found(monkeypatch):
    with using(Wrong()):
        finding = machine._loss(torch.device("cpu"))
    assert finding.state == FAIL and "DISTIL_LOSS=reference" in finding.remedy


def test_a_gpu_that_torch_has_no_code_for_fails(monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (1, 0))
    assert any(finding.state == FAIL and "sm_10" in finding.found for finding in examine())
