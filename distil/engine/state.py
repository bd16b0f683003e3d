"""What training has come to, by parameter names, however ZeRO lays it out: weights, Adam's moments, a few numbers.

DeepSpeed's own checkpoints are pickles of its objects, one layout a stage and number of ranks. Here every rank names
the runs of elements that its optimiser holds, as DeepSpeed's universal checkpoints do, so that what any ranks have
written any others can read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from distil.engine.ranks import Ranks  # tells DeepSpeed of the CPU before it is imported

from deepspeed.runtime.fp16.unfused_optimizer import FP16_UnfusedOptimizer  # isort: skip
from deepspeed.utils import safe_get_full_fp32_param  # isort: skip
from torch import Tensor, nn

WEIGHT = "fp32"
MOMENTS = ("exp_avg", "exp_avg_sq")
ENGINE_FIELDS = ("global_steps", "global_samples", "skipped_steps")
SCALER_FIELDS = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")
# Kind of tensor (WEIGHT or one of MOMENTS), parameter, first element, number of elements -> fp32, one-dimensional.
Read = Callable[[str, str, int, int], Tensor]


@dataclass(frozen=True)
class Slice:
    """Elements ``start`` to ``start + numel`` of a parameter, which stand at ``offset`` of a tensor Adam steps on.

    ``owned`` where this rank is the one to write them.
    """

    name: str
    start: int
    numel: int
    flat: Tensor
    offset: int
    owned: bool

    def of(self, tensor: Tensor) -> Tensor:
        """These elements of a tensor laid out as ``flat``; a view."""
        return tensor.view(-1)[self.offset : self.offset + self.numel]


Loaded = list[tuple[Slice, dict[str, Tensor]]]


class TrainingState:
    """The state of a DeepSpeed engine on this rank."""

    def __init__(self, engine: Any, ranks: Ranks) -> None:
        self._engine, self._ranks = engine, ranks
        self._optimizer = engine.optimizer
        self._adam = engine.basic_optimizer
        self._zero3 = engine.zero_optimization_stage() == 3

    def copy(self) -> dict[tuple[str, str, int], Tensor]:
        """Host copies of what this rank is to write, by kind, parameter and first element."""
        found = {}
        for piece in self._slices():
            if not piece.owned:
                continue
            found[WEIGHT, piece.name, piece.start] = piece.of(piece.flat)
            state = self._adam.state.get(piece.flat, {})
            for moment in MOMENTS:
                if moment in state:  # none before the first step that was taken
                    found[moment, piece.name, piece.start] = piece.of(state[moment])
        return {key: value.detach().to("cpu", torch.float32, copy=True) for key, value in found.items()}

    def numbers(self) -> dict[str, Any]:
        """What else decides the steps to come; plain values, the same on every rank."""
        engine = self._engine
        fields = {name: getattr(self._scaler(), name) for name in SCALER_FIELDS if hasattr(self._scaler(), name)}
        return {
            **{name: getattr(engine, name) for name in ENGINE_FIELDS},
            "adam_steps": self._adam_steps(),
            "scaler": fields,
        }

    def read(self, read: Read, numbers: dict[str, Any]) -> Loaded:
        """This rank's part of a state that any ranks wrote; nothing changes yet, and no other rank is waited for."""
        kinds = (WEIGHT, *(MOMENTS if numbers["adam_steps"] else ()))
        return [(p, {kind: read(kind, p.name, p.start, p.numel) for kind in kinds}) for p in self._slices()]

    @torch.no_grad()
    def restore(self, loaded: Loaded, numbers: dict[str, Any]) -> None:
        """Take what was read; all ranks must call it. The loss scale is taken where both runs seek one."""
        if self._zero3:
            self._optimizer.checkpoint_event_prologue()  # gathered weights would hide the partitions
        for flat in {id(piece.flat): piece.flat for piece, _ in loaded}.values():
            self._make_moments(flat, numbers["adam_steps"])
        for piece, values in loaded:
            piece.of(piece.flat.data).copy_(values.pop(WEIGHT))
            for moment, value in values.items():
                piece.of(self._adam.state[piece.flat][moment]).copy_(value)
        self._spread_weights()
        for name in ENGINE_FIELDS:
            setattr(self._engine, name, numbers[name])
        for name, value in numbers["scaler"].items():
            if hasattr(self._scaler(), name):
                setattr(self._scaler(), name, value)

    def full_fp32(self, parameter: nn.Parameter) -> Tensor:
        """A parameter's whole fp32 value on the CPU; all ranks must ask together."""
        value = self.unfused_masters().get(parameter)
        if value is None:
            value = safe_get_full_fp32_param(parameter)
        return (parameter if value is None else value).detach().float().cpu()

    def unfused_masters(self) -> dict[nn.Parameter, Tensor]:
        """16-bit parameter -> fp32 master, where the optimiser is the wrapper of stage 0 that keeps them one by one."""
        if not isinstance(self._optimizer, FP16_UnfusedOptimizer):
            return {}
        groups = zip(self._optimizer.fp16_groups, self._optimizer.fp32_groups, strict=True)
        return {half: full for halves, fulls in groups for half, full in zip(halves, fulls, strict=True)}

    def _slices(self) -> Iterator[Slice]:
        masters, optimizer, ranks = self.unfused_masters(), self._optimizer, self._ranks
        trained = [(name, p) for name, p in self._engine.module.named_parameters() if p.requires_grad]
        for number, (name, parameter) in enumerate(trained):
            if self._zero3:
                group, offset, held = optimizer.grad_position[optimizer.get_param_id(parameter)]
                start = ranks.rank * held
                numel = min(held, parameter.ds_numel - start)  # the last ranks hold padding, or nothing else
                if numel > 0:
                    yield Slice(name, start, numel, optimizer.fp32_partitioned_groups_flat[group], offset, True)
            elif hasattr(parameter, "_hp_mapping"):
                mapping = parameter._hp_mapping
                if mapping is not None:
                    at, flat = mapping.hp_fragment_address, self._flats()[mapping.param_group_index]
                    yield Slice(name, mapping.lp_fragment_address.start, at.numel, flat, at.start, True)
            else:  # every rank has it all
                flat = masters.get(parameter, parameter)
                yield Slice(name, 0, flat.numel(), flat, 0, number % ranks.world == ranks.rank)

    def _flats(self) -> list[Tensor]:
        for name in ("single_partition_of_fp32_groups", "fp32_groups_flat_partition"):  # ZeRO-1 and 2; bf16
            if hasattr(self._optimizer, name):
                return getattr(self._optimizer, name)
        raise AssertionError(f"{type(self._optimizer).__name__} keeps its weights where we do not look")

    def _adam_steps(self) -> int:
        """Steps that Adam has taken, which its bias correction counts: in each state, or in the group (FusedAdam)."""
        steps = [state["step"] for state in self._adam.state.values() if "step" in state]
        steps += [group["step"] for group in self._adam.param_groups if "step" in group]
        return max((int(step) for step in steps), default=0)  # FusedAdam counts in one of its parameters only

    def _make_moments(self, flat: Tensor, steps: int) -> None:
        """Adam's state as its first step would make it, so that there is something to read into."""
        if not steps:
            self._adam.state.pop(flat, None)
            return
        state = self._adam.state[flat]
        for moment in MOMENTS:
            state[moment] = torch.zeros_like(flat, dtype=torch.float32)
        if not isinstance(self._adam, torch.optim.Adam):  # DeepSpeed's: CPUAdam counts a state's, FusedAdam a group's
            state["step"] = steps
            for group in self._adam.param_groups:
                group["step"] = steps
            return
        on_device = any(group.get("fused") or group.get("capturable") for group in self._adam.param_groups)
        state["step"] = torch.tensor(float(steps), dtype=torch.float32, device=flat.device if on_device else "cpu")

    def _spread_weights(self) -> None:
        """Make the weights that forwards use out of the fp32 ones, as the optimiser does after a step."""
        optimizer = self._optimizer
        for half, full in self.unfused_masters().items():
            half.data.copy_(full.data)
        if hasattr(optimizer, "update_lp_params"):
            optimizer.update_lp_params()
        if self._zero3:
            flats = zip(optimizer.fp16_partitioned_groups_flat, optimizer.fp32_partitioned_groups_flat, strict=True)
            for number, (half, full) in enumerate(flats):
                half.data.copy_(full.data)
                parts = optimizer.fp16_partitioned_groups[number]
                for part, values in zip(parts, optimizer.unflatten(half, parts), strict=True):
                    part.data = values.data
            if optimizer.persistent_parameters:
                optimizer.persistent_parameters[0].partition(optimizer.persistent_parameters)
            optimizer.checkpoint_event_epilogue()
        self._engine.module.weights_changed()

    def _scaler(self) -> Any:
        """What seeks the loss scale; None where it is fixed, or there is none."""
        for name, sign in (("loss_scaler", "dynamic"), ("loss_scale_config", "dynamic_loss_scale")):
            scaler = getattr(self._optimizer, name, None)
            if scaler is not None and self._engine.fp16_enabled() and getattr(scaler, sign, False):
                return scaler
        return None
