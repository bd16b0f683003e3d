"""Notes what makes a host wait for its device, and what ranks send one another, while code runs."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Operators whose result's size or value the host has to know, and methods that hand numbers to Python.
WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "equal",
    "is_nonzero", "bincount", "nonzero_static",
}  # fmt: skip
HANDING = {"tolist", "numpy", "cpu"}
OURS, THEIRS = "distil", "deepspeed"


class Recording:
    """Counts, by what was called and by the innermost function of ours or of DeepSpeed that called it.

    ``waits`` by (operator, module of the caller, its function); ``sent`` by (collective, dtype): the elements that this
    rank gave each time.
    """

    def __init__(self) -> None:
        self.waits: Counter[tuple[str, str, str]] = Counter()
        self.sent: dict[tuple[str, str], list[int]] = {}
        self._modes: list[Any] = []

    def __enter__(self) -> Recording:
        self._modes = [_Methods(self), _Operators(self)]
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*exception)

    def wait(self, called: str) -> None:
        """Note that the host waits."""
        self.waits[called, *_caller()] += 1

    def send(self, called: str, tensors: list[Tensor]) -> None:
        """Note a collective over these tensors."""
        key = called, str(tensors[0].dtype).removeprefix("torch.")
        self.sent.setdefault(key, []).append(sum(tensor.numel() for tensor in tensors))


class _Operators(TorchDispatchMode):
    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self._recording = recording

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name, kwargs = func.overloadpacket.__name__, kwargs or {}
        if func.namespace == "c10d":
            tensors = list(_tensors(args))
            if tensors:
                # Of gathers and scatters the first tensor is the output.
                self._recording.send(name.strip("_"), tensors[-1:] if "base" in name else tensors)
        elif name in WAITING or _masks(name, args) or (name == "repeat_interleave" and not kwargs.get("output_size")):
            self._recording.wait(name)
        return func(*args, **kwargs)


class _Methods(TorchFunctionMode):
    def __init__(self, recording: Recording) -> None:
        super().__init__()
        self._recording = recording

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if getattr(func, "__name__", "") in HANDING:
            self._recording.wait(func.__name__)
        return func(*args, **(kwargs or {}))


def _masks(name: str, args: tuple) -> bool:
    """Whether an operator takes rows by a mask, whose count is not known."""
    if not name.startswith("index") or len(args) < 2 or not isinstance(args[1], list | tuple):
        return False
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)


def _caller() -> tuple[str, str]:
    for frame in reversed(traceback.extract_stack()):
        parts = frame.filename.removesuffix(".py").split("/")
        for package in (OURS, THEIRS):
            if package in parts[:-1]:
                # The last of that name: a folder on the way may bear it, too.
                return ".".join(parts[len(parts) - 1 - parts[::-1].index(package) :]), frame.name
    return "", ""
