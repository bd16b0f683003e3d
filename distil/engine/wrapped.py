"""DeepSpeed around the student with its loss: step, gather, close."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import torch

from distil.engine.device import check_compiler  # tells DeepSpeed of the CPU before it is imported
from distil.engine.ranks import Ranks
from distil.engine.state import TrainingState

import deepspeed  # isort: skip
from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer  # isort: skip
from torch import Tensor, nn

from distil.errors import ConfigError, by_all
from distil.models.constants import constants, restore_constants
from distil.models.hosted import Hosted
from distil.placement import Placement


class Engine:
    """DeepSpeed around a module whose forward returns the loss as its share of the global batch.

    The module is told when its weights have changed.

    The module holds student and loss together: ZeRO-3 gathers a weight only for forwards that it wraps.
    """

    def __init__(self, module: Hosted, groups: list[dict[str, Any]], placement: Placement, ranks: Ranks) -> None:
        if placement.compiled:
            check_compiler(ranks.device)
            module.compile_layers()
        with contextlib.redirect_stdout(io.StringIO()):  # some of its optimisers print memory tables
            kept = constants(module)
            self._engine, *_ = deepspeed.initialize(model=module, model_parameters=groups, config=placement.config)
            restore_constants(module, kept)  # it casts all there is
        self._ranks = ranks
        self._norm: Tensor | float | None = None
        optimizer = self._engine.optimizer
        # Stage 0 in 16 bits: a wrapper of the optimiser whose handling of the loss scale is left to us (0.19.8).
        self._unfused = optimizer if isinstance(optimizer, FP16_UnfusedOptimizer) else None
        # Stage 0 in fp32: the optimiser itself, which would take a step on gradients that are no numbers.
        self._plain = optimizer is self._engine.basic_optimizer
        if self._plain:
            self._take_plain_step, optimizer.step = optimizer.step, self._step_if_finite
        self._check(placement)
        self.state = TrainingState(self._engine, ranks)
        if self._unfused is not None:
            # It has taken a step on zeros, which moves Adam's bias correction on by one and decays the weights.
            self._unfused.optimizer.state.clear()
            for half, full in self.state.unfused_masters().items():
                full.data.copy_(half.data)

    def _check(self, placement: Placement) -> None:
        optimizer = self._engine.optimizer
        known = self._plain or self._unfused is not None or placement.zero_stage == 3
        if not known and not hasattr(optimizer, "update_lp_params"):
            raise by_all(
                ConfigError(
                    f"ds_config {placement.path}: {type(optimizer).__name__}, its optimizer at ZeRO stage "
                    f'{placement.zero_stage}, cannot be saved whole; write "torch_adam": true in optimizer.params'
                )
            )
        scaler = getattr(optimizer, "loss_scaler", None)
        if hasattr(scaler, "raise_error_at_min_scale"):
            scaler.raise_error_at_min_scale = False  # the run's own health says more of it

    def micro_step(self, *args: Any, weight: float = 1.0) -> Tensor:
        """Forward, backward and, on the last micro-batch of a step, the update. Returns the loss terms, detached.

        A micro-batch of weight 0 only keeps this rank in step with the others.
        """
        output = self._engine(*args)
        # DeepSpeed averages over ranks and accumulation; shares of a global batch are to be summed.
        loss = output.total * (weight * self._ranks.world)
        scale = self.loss_scale
        if self._unfused is not None:
            loss = loss * scale  # it divides gradients by the scale without having multiplied the loss
        self._engine.backward(loss, scale_wrt_gas=False)
        boundary = self._engine.is_gradient_accumulation_boundary()
        if boundary and self._plain:
            parameters = self._engine.module.parameters()
            self._norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        self._engine.step()
        if boundary:
            self._engine.module.weights_changed()
        if boundary and self._unfused is not None:
            self._norm = self._engine.get_global_grad_norm() / scale
        return output.terms * weight

    def _step_if_finite(self) -> None:
        """The plain optimiser's step, left out on gradients that are no numbers, as every other optimiser here does."""
        if torch.isfinite(self._norm):  # the same on every rank: gradients have been reduced
            self._take_plain_step()
        else:
            self._engine.skipped_steps += 1

    def evaluate(self, *args: Any) -> Any:
        """The module's forward without gradient, in eval mode; all ranks must call it alike."""
        self._engine.eval()
        with torch.no_grad():
            output = self._engine(*args)
        self._engine.train()
        return output

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the step to come."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = lr

    @property
    def grad_norm(self) -> float:
        """Global norm of the last step's gradients before clipping; waits for the device."""
        norm = self._engine.get_global_grad_norm() if self._norm is None else self._norm
        return float(norm) if norm is not None else float("nan")

    @property
    def loss_scale(self) -> float:
        """Factor that keeps fp16 gradients from flushing to zero; 1 in other precisions."""
        if self._unfused is not None:
            return float(self._unfused.loss_scale_config.cur_scale)
        return float(getattr(self._engine.optimizer, "loss_scale", 1.0))

    @property
    def skipped_steps(self) -> int:
        """Steps left out so far because a gradient was no finite number; the same on every rank, without waiting."""
        return self._engine.skipped_steps

    def fp32_parameters(self, model: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Name and full fp32 value, on the CPU, of every parameter of ``model``; all ranks must iterate together."""
        for name, parameter in model.named_parameters():
            yield name, self.state.full_fp32(parameter)

    def close(self) -> None:
        """Free DeepSpeed's hooks and buffers, so that another engine can follow in this process."""
        self._engine.destroy()
