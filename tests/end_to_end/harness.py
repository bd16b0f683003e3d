"""A tiny teacher, its text and a recipe, made on the spot, and a way to start the real programs on them."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil
import pytest
import torch
import transformers
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from distil.data.binarize import binarize
from distil.data.sources import files

ROOT = Path(__file__).parents[2]
# What the clock and the machine decide; every other curve of two equal runs is equal.
CLOCKED = {"speed/tokens_per_second", "speed/eta_hours", "memory/peak_gib", "data/wait_fraction"}
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"{first}{last}" for first in "bcdfghjklm" for last in ("a", "e", "i", "o", "u", "ab", "eb", "ib", "ob", "ub")]

RECIPE = """
[model]
teacher = "{teacher}"
student = "distilbert"
student_layers = [0, 2]
dropout = 0.1
[loss]
temperature = 2.0
alpha_ce = 5.0
alpha_mlm = 2.0
alpha_cos = 1.0
[masking]
mlm_fraction = 0.15
mask_share = 0.8
keep_share = 0.1
mlm_smoothing = 0.7
[data]
store = "{store}"
max_length = 32
batch_size = 16
micro_batch_size = 4
[optimizer]
lr = 2e-3
adam_beta1 = 0.9
adam_beta2 = 0.98
adam_eps = 1e-6
weight_decay = 0.01
warmup_fraction = 0.05
max_grad_norm = 5.0
epochs = 12
seed = 7
[run]
log_every = 1
eval_every = 10
save_every = 5
"""


@dataclass(frozen=True)
class Material:
    """Folders and files of the tiny job."""

    teacher: Path
    store: Path
    other: Path
    recipe: Path
    text: Path


def make_teacher(
    folder: Path, vocabulary: list[str] | None = None, layers: int = 4, hidden: int = 32
) -> Path:  # fmt: skip
    """A random BERT with its tokenizer; large enough weights that its guesses are not all alike."""
    words = vocabulary or [*SPECIAL, *WORDS]
    torch.manual_seed(11)
    tokenizer = transformers.BertTokenizerFast(vocab={word: i for i, word in enumerate(words)})
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4,
        intermediate_size=2 * hidden, max_position_embeddings=64, initializer_range=0.3 * (32 / hidden) ** 0.5,
    )  # fmt: skip
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_material(folder: Path) -> Material:
    """Teacher, text, store with a held-out part, a smaller one without, and recipe in a folder."""
    teacher = make_teacher(folder / "teacher")
    rng = random.Random(5)
    lines = [" ".join(rng.choices(WORDS, weights=range(1, len(WORDS) + 1), k=rng.randint(10, 30))) for _ in range(600)]
    (folder / "text.txt").write_text("\n".join(lines) + "\n")
    tokenizer = transformers.AutoTokenizer.from_pretrained(teacher)
    how = {"max_length": 32, "progress": False}
    binarize(files([folder / "text.txt"]), tokenizer, folder / "store", heldout_fraction=0.1, **how)
    (folder / "tiny.toml").write_text(RECIPE.format(teacher=teacher, store=folder / "store"))
    return with_other(folder, rng)


def with_other(folder: Path, rng: random.Random) -> Material:
    """The material of a folder that has teacher, text, store and recipe, with a smaller store made of other text."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "teacher")
    (folder / "other.txt").write_text("\n".join(" ".join(rng.choices(WORDS, k=20)) for _ in range(150)) + "\n")
    binarize(files([folder / "other.txt"]), tokenizer, folder / "other", max_length=32, progress=False)
    return Material(*(folder / name for name in ("teacher", "store", "other", "tiny.toml", "text.txt")))


def cannot(why: str) -> NoReturn:
    """Skip what cannot be tested here, or fail where that may not be (DISTIL_MUST_RUN, as CI sets it)."""
    (pytest.fail if os.environ.get("DISTIL_MUST_RUN") else pytest.skip)(why)


def environment() -> dict[str, str]:
    """The environment of a user's shell: this interpreter's programs first, no hub, nothing of a launcher's."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def command(ranks: int | None, *arguments: object, program: str = "launch/pretrain.py") -> list[str]:
    """A program by the launcher on so many ranks, or by python alone where None."""
    if ranks is None:
        return [sys.executable, program, *map(str, arguments)]
    start = ["deepspeed", "--num_gpus", str(ranks), "--master_port", str(free_port()), program]
    return [*start, *map(str, arguments)]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pretrain(ranks: int | None, *arguments: object, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run launch/pretrain.py to its end, as a user would from the repository's root."""
    return subprocess.run(
        command(ranks, *arguments), cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout
    )


def must_pretrain(ranks: int | None, *arguments: object) -> str:
    """As ``pretrain``, for runs that must succeed; returns what was printed."""
    result = pretrain(ranks, *arguments)
    assert result.returncode == 0, f"{result.args}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return result.stdout


class Started:
    """A run in the background, whose output goes to ``log``; ends with everything it has started."""

    def __init__(self, line: list[str], log: Path, **variables: str) -> None:
        self.log = log
        self._output = log.open("w")
        self.process = subprocess.Popen(
            line, cwd=ROOT, env=environment() | variables, stdout=self._output, stderr=self._output,
            start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        self.family: list[psutil.Process] = []

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *exception: object) -> None:
        self.look()
        for member in self.family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.wait(30)
        self._output.close()

    def wait_for(self, when: Callable[[], bool], seconds: float = 240) -> None:
        """Until ``when`` holds, while the run is alive."""
        began = time.monotonic()
        while not when():
            assert self.process.poll() is None, f"ended too early:\n{self.log.read_text()[-3000:]}"
            assert time.monotonic() - began < seconds, f"nothing happened:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.02)

    def look(self) -> list[psutil.Process]:
        """All processes of the run that have been seen and live: launcher, its child, ranks, what they started."""
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(self.process.pid)
            self.family += [p for p in [top, *top.children(recursive=True)] if p not in self.family]
        return [p for p in self.family if _lives(p)]

    def ranks(self) -> list[psutil.Process]:
        """The ranks' processes, in their order."""
        found = {}
        for member in self.look():
            with contextlib.suppress(psutil.Error):
                if "RANK" in (variables := member.environ()) and "--local_rank" in " ".join(member.cmdline()):
                    found.setdefault(int(variables["RANK"]), member)
        return [found[rank] for rank in sorted(found)]

    def gone_within(self, seconds: float) -> float:
        """Seconds until no process of the run is left; fails where that takes longer."""
        began = time.monotonic()
        while left := self.look():
            self.process.poll()
            assert time.monotonic() - began < seconds, f"{left} are left:\n{self.log.read_text()[-3000:]}"
            time.sleep(0.05)
        self.process.wait(10)
        return time.monotonic() - began


def _lives(process: psutil.Process) -> bool:
    """Whether a process runs; it may go while one looks."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_and_kill(when: Callable[[], bool], line: list[str], log: Path) -> None:
    """Start a program and kill every process of it with SIGKILL as soon as ``when`` holds."""
    with Started(line, log) as run:
        run.wait_for(when)


def scalars(run: Path, tag: str) -> dict[int, float]:
    """{step: value} of a TensorBoard tag of a run, as stored (fp32)."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {event.step: event.value for event in events.Scalars(tag)}


def tags(run: Path) -> set[str]:
    """All scalar tags of a run."""
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return set(events.Tags()["scalars"])
