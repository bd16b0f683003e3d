"""Plans are made without a network, a cache of models, or folders of whoever runs the tests."""

from __future__ import annotations

import pytest
from planned import ROOT


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch, tmp_path):
    """As launch/plan.py has it, whatever the machine could reach; in a folder that has ds_configs alone."""
    here, hub = tmp_path / "here", tmp_path / "hub"
    here.mkdir()
    (here / "ds_config").symlink_to(ROOT / "ds_config")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HF_HOME", str(hub))  # of programs that a test starts
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
