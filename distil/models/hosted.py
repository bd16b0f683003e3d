"""What student and loss are wrapped in, of whatever they are trained on: its forward runs as is fastest on a CPU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from distil.data.batch import PackedBatch
from distil.kernels.host import host_functions
from distil.kernels.packing import PackedWeights
from distil.tasks.batch import TaskBatch


class Hosted(nn.Module, ABC):
    """A module whose ``compute`` is its forward, under ``host_functions`` with weights that are laid out once."""

    def __init__(self) -> None:
        super().__init__()
        self._packed = PackedWeights()

    @abstractmethod
    def compute(self, batch: PackedBatch | TaskBatch, *args: Any, **kwargs: Any) -> Any:
        """The forward."""

    def forward(self, batch: PackedBatch | TaskBatch, *args: Any, **kwargs: Any) -> Any:
        """What ``compute`` returns."""
        with host_functions(self._packed, batch.input_ids_N.device):
            return self.compute(batch, *args, **kwargs)

    def weights_changed(self) -> None:
        """To be called whenever trained weights are others than in the last forward."""
        self._packed.forget()
