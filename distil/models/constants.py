"""A model in 16 bits whose constants stay in fp32.

Rotary frequencies and the like are buffers that no file holds. transformers leaves them in fp32 when it loads a model
in 16 bits; whoever casts the whole module rounds them, and turns far positions by other angles than the export's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def constants(model: nn.Module) -> dict[str, Tensor]:
    """Floating-point buffers, by name, that no file holds."""
    return {
        f"{path}.{name}".lstrip("."): buffer
        for path, module in model.named_modules()
        for name, buffer in module.named_buffers(recurse=False)
        if name in module._non_persistent_buffers_set and buffer.is_floating_point()
    }


def in_precision(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The model with its weights in ``dtype``, in place; its constants stay as they are, as on loading in ``dtype``."""
    kept = constants(model)
    model.to(dtype)
    restore_constants(model, kept)
    return model


def restore_constants(model: nn.Module, kept: dict[str, Tensor]) -> None:
    """Put ``constants`` back, on the device where the model's are now."""
    for name, buffer in kept.items():
        path, _, own = name.rpartition(".")
        module = model.get_submodule(path)
        setattr(module, own, buffer.to(getattr(module, own).device))
