"""Plans are made without a network."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def without_a_network(monkeypatch):
    """As launch/plan.py has it, whatever the machine could reach."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
