"""What student and loss are wrapped in, of whatever they are trained on: its forward runs as is fastest where it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import transformers
from torch import nn

from distil.data.batch import PackedBatch
from distil.kernels.host import host_functions
from distil.kernels.packing import PackedWeights
from distil.models.family import Family
from distil.models.packed import use_packed_attention
from distil.tasks.batch import TaskBatch

Model = transformers.PreTrainedModel


class Hosted(nn.Module, ABC):
    """A student with its teacher, None where it has none, whose ``compute`` is this module's forward.

    The teacher is held outside the module tree: the engine must neither shard, cast nor save it. Both run on packed
    batches, on a CPU under ``host_functions`` or with compiled layers.
    """

    def __init__(
        self, student: Model, student_family: Family, teacher: Model | None, teacher_family: Family | None
    ) -> None:  # fmt: skip
        super().__init__()
        self.student = student
        self._student_family, self._teacher_family = student_family, teacher_family
        self._teacher = [teacher]  # a list, so that nn.Module does not adopt it
        self._packed, self._compiled = PackedWeights(), False
        for model in (student, teacher):
            if model is not None:
                use_packed_attention(model)

    @abstractmethod
    def compute(self, batch: PackedBatch | TaskBatch, *args: Any, **kwargs: Any) -> Any:
        """The forward."""

    def forward(self, batch: PackedBatch | TaskBatch, *args: Any, **kwargs: Any) -> Any:
        """What ``compute`` returns."""
        if self._compiled:
            return self.compute(batch, *args, **kwargs)
        with host_functions(self._packed, batch.input_ids_N.device):
            return self.compute(batch, *args, **kwargs)

    def weights_changed(self) -> None:
        """To be called whenever trained weights are others than in the last forward."""
        self._packed.forget()

    def compile_layers(self, backend: str = "inductor") -> None:
        """Have torch's compiler make each layer's passes, of both models; attention stays as it is.

        Numbers of tokens are left open, so micro-batches of any size run what was compiled for the first. On a CPU
        what is compiled takes the place of ``host_functions``.
        """
        self._compiled = True
        for model, family in ((self.student, self._student_family), (self._teacher[0], self._teacher_family)):
            for layer in family.layers(model) if model is not None else ():
                layer.compile(dynamic=True, backend=backend)
