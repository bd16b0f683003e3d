"""What a person sees of a run: TensorBoard scalars under stable tags, and a progress bar."""

from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

# Written against tokens as well as steps: what is compared between runs of different batch sizes.
BY_TOKENS = ("loss/", "heldout/")
SECONDS_BETWEEN_LINES = 15.0


class Monitor:
    """Reports the steps of one run, from rank 0; on other ranks every call does nothing.

    ``done`` steps of ``total`` lie behind; scalars of later steps that an earlier, interrupted run left are dropped.
    """

    def __init__(self, folder: Path, title: str, done: int, total: int, first: bool) -> None:
        self._first, self._total, self._step = first, total, done
        if not first:
            return
        self._writer = SummaryWriter(str(folder), purge_step=done + 1 if done else None, flush_secs=10)
        self._bar = tqdm(total=total, initial=done, desc=title, unit="step", disable=None, dynamic_ncols=True)
        self._line_at = time.monotonic()
        self._title = title

    def texts(self, texts: dict[str, Any]) -> None:
        """Put configuration and versions beside the curves, as preformatted text."""
        if self._first:
            for name, value in texts.items():
                value = value if isinstance(value, str) else json.dumps(value, indent=2)
                self._writer.add_text(name, "\n".join("    " + line for line in value.splitlines()), self._step)

    def scalars(self, values: dict[str, float], step: int, tokens: int) -> None:
        """Write scalars at a step and, for those of BY_TOKENS, at the tokens seen."""
        if not self._first:
            return
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, step)
            if tag.startswith(BY_TOKENS):
                self._writer.add_scalar(f"by_tokens/{tag}", value, tokens)

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
            print(
                f"{self._title}: step {step}/{self._total}, " + ", ".join(f"{k} {v}" for k, v in values.items()),
                flush=True,
            )

    def close(self) -> None:
        """Write what is pending and leave the terminal clean."""
        if self._first:
            self._bar.close()
            self._writer.close()


def peak_memory_gib(device: torch.device) -> float:
    """Most memory this process has held: of the device on a GPU, resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30


def perplexity(nll: float) -> float:
    """exp of a mean negative log-likelihood in nats, infinite where it overflows."""
    return math.exp(nll) if nll < 700 else math.inf


def git_revision() -> str:
    """Revision of the checkout this code runs from, with a + where files differ from it; 'unknown' outside git."""
    where = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=where, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
