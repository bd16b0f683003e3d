"""Times and memory of steps that take turns in one process, on the device that is there."""

from __future__ import annotations

import ctypes
import gc
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

Step = Callable[[], object]


def seconds(steps: dict[str, Step], repeats: int, device: torch.device) -> dict[str, float]:
    """Median time of each step over ``repeats`` turns, after two that warm up."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(repeats + 2):
        for name, step in steps.items():
            taken = _on_gpu(step) if device.type == "cuda" else _on_cpu(step)
            if turn >= 2:
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


def _on_gpu(step: Step) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    step()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def _on_cpu(step: Step) -> float:
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


def peak_bytes(step: Step, device: torch.device) -> int:
    """Most memory that a step holds beyond what there was before it; on a CPU the process's resident memory."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # what earlier steps freed goes back
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted anew
    before = _status("VmRSS")
    step()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def machine(device: torch.device) -> str:
    """The device in words, with the versions that matter."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, torch {torch.__version__}"
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = models[0].split(": ")[1] if models else platform.processor()
    threads = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    return f"{name}, {threads}, torch {torch.__version__}"
