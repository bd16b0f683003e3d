"""What a person sees of a run: TensorBoard scalars under stable tags, and a progress bar."""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

SECONDS_BETWEEN_LINES = 15.0


class Monitor:
    """Reports the steps of one run, from rank 0; on other ranks every call does nothing.

    ``step`` steps of ``total`` and ``tokens`` tokens lie behind; what an interrupted run wrote of later ones is
    dropped. Scalars against tokens are a TensorBoard run of their own, ``by_tokens``, under the same tags.
    """

    def __init__(self, folder: Path, title: str, step: int, tokens: int, total: int, first: bool) -> None:
        self._first, self._title, self._total, self._step = first, title, total, step
        self._failed = False
        self._writers: list[SummaryWriter] = []
        if not first:
            return
        self._bar = tqdm(total=total, initial=step, desc=title, unit="step", disable=None, dynamic_ncols=True)
        self._line_at = time.monotonic()
        self._write(lambda: self._open(folder, step, tokens))

    def _open(self, folder: Path, step: int, tokens: int) -> None:
        for where, at in ((folder, step), (folder / "by_tokens", tokens)):
            self._writers.append(SummaryWriter(str(where), purge_step=at + 1 if at else 0))

    def texts(self, texts: dict[str, Any]) -> None:
        """Put configuration and versions beside the curves, as preformatted text."""
        for name, value in texts.items():
            value = value if isinstance(value, str) else json.dumps(value, indent=2)
            text = "\n".join("    " + line for line in value.splitlines())
            self._write(lambda name=name, text=text: [w.add_text(name, text, self._step) for w in self._writers[:1]])

    def scalars(self, values: dict[str, float], step: int, tokens: int) -> None:
        """Write scalars at a step and at the tokens seen."""

        def add() -> None:
            for writer, at in zip(self._writers, (step, tokens), strict=False):
                for tag, value in values.items():
                    writer.add_scalar(tag, value, at)

        self._write(add)

    def progress(self, step: int, values: dict[str, str]) -> None:
        """Advance the bar; without a terminal print a line now and then, and always the last."""
        if not self._first:
            return
        self._bar.update(step - self._step)
        self._step = step
        self._bar.set_postfix(values, refresh=False)
        now = time.monotonic()
        if self._bar.disable and (now - self._line_at > SECONDS_BETWEEN_LINES or step == self._total):
            self._line_at = now
            details = ", ".join(f"{name} {value}" for name, value in values.items())
            print(f"{self._title}: step {step}/{self._total}, {details}", flush=True)

    def warn(self, line: str) -> None:
        """Say on standard error, once, above the progress bar, that something is not as it should be."""
        if self._first:
            self._bar.clear()
            print(f"warning: {line}", file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Put on disk what was written, so that the curves reach as far as the checkpoint that is about to be."""
        self._write(lambda: [writer.flush() for writer in self._writers])

    def close(self) -> None:
        """Write what is pending and leave the terminal clean."""
        if self._first:
            self._bar.close()
            self._write(lambda: [writer.close() for writer in self._writers])

    def _write(self, work: Callable[[], object]) -> None:
        """Curves are not worth a run: where they cannot be written, that is said once, and training goes on."""
        if not self._first or self._failed:
            return
        try:
            work()
        except OSError as error:
            self._failed = True
            self._writers = []
            self.warn(f"TensorBoard's files cannot be written ({error}): training goes on without curves")


def peak_memory_gib(device: torch.device) -> float:
    """Most memory this process has held: of the device on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30


def perplexity(nll: float) -> float:
    """exp of a mean negative log-likelihood in nats, infinite where it overflows."""
    return math.exp(nll) if nll < 700 else math.inf
