"""Fixtures of more than one test module."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

if TYPE_CHECKING:
    from saved import Saved


@pytest.fixture(scope="module")
def one_thread():
    """For tiny tensors: threads that share two cores with other work would wait a hundred times as long."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """Makes folders of tiny models."""
    from saved import Saved  # with much that most tests do without

    return Saved(tmp_path_factory)


RECIPE = """
[model]
teacher = "t"
student = "distilbert"
student_layers = [0, 2]
dropout = 0.1
[loss]
temperature = 2.0
alpha_ce = 5.0
alpha_mlm = 2.0
alpha_cos = 1
[masking]
mlm_fraction = 0.15
mask_share = 0.8
keep_share = 0.1
mlm_smoothing = 0.7
[data]
store = "s"
max_length = 32
batch_size = 12
micro_batch_size = 4
[optimizer]
lr = 5e-4
adam_beta1 = 0.9
adam_beta2 = 0.98
adam_eps = 1e-6
weight_decay = 0.0
warmup_fraction = 0.05
max_grad_norm = 5.0
epochs = 3
seed = 56
"""


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., str]:
    """Writes the recipe above with one text replaced, and returns its path."""

    def write(old: str = "", new: str = "") -> str:
        assert old in RECIPE
        path = tmp_path / "mine.toml"
        path.write_text(RECIPE.replace(old, new, 1) if old else RECIPE + new)
        return str(path)

    return write
