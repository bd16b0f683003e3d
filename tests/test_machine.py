"""The machine in words."""

from __future__ import annotations

import os

import pytest
import torch

from distil.machine import device_name, machine


@pytest.mark.parametrize(("cores", "said"), [({0}, "1 core"), ({0, 1, 5}, "3 cores")])
def test_a_processor_with_the_cores_that_may_be_used(monkeypatch, cores, said):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: cores)
    cpu = torch.device("cpu")
    assert device_name(cpu) and "\n" not in device_name(cpu)
    assert machine(cpu) == f"{device_name(cpu)}, {said}"
