"""A checkpoint at DistilBERT's size, by this package and by DeepSpeed itself, on the same engine.

    python benchmarks/checkpoint.py                                                on 1 rank, then on 2; minutes
    python benchmarks/checkpoint.py --out benchmarks/results/checkpoint-cpu.md     kept

The student alone, with random weights, ZeRO-1 in fp32; the two take turns on one engine, medians are told. Ours is
written by a thread: training stands still for a copy in memory. DeepSpeed's save_checkpoint blocks, and leaves to the
system when its files reach the disk, so its files are then synced and the time with that is told beside it. Scratch
files lie under --folder, which must be on a disk, and are removed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch

RECIPE = "distilbert-base-uncased"
CORPUS_TOKENS, PUBLISHED_HOURS = 3.5e9, 90  # as the recipe's head states them
ROWS = {
    "state": "ours: weights and both moments",
    "begin": "ours: training stands still",
    "published": "ours: hashed, on disk and published after",
    "theirs": "DeepSpeed's `save_checkpoint`: training stands still",
    "theirs_synced": "DeepSpeed's, with its files on disk",
    "our_bytes": "ours, bytes",
    "their_bytes": "DeepSpeed's, bytes",
    "restore": "ours: every hash verified, and loaded",
    "load": "DeepSpeed's `load_checkpoint`, nothing verified",
    "step": "a step of one sequence of 512 tokens a rank, without teacher",
}


class Output(NamedTuple):
    """What our engine takes from a module's forward."""

    total: torch.Tensor
    terms: torch.Tensor


def timed(turns: int, *works: Callable[[], object]) -> list[float]:
    """Median seconds of each work, which take turns."""
    times = [[] for _ in works]
    for _ in range(turns):
        for work, taken in zip(works, times, strict=True):
            began = time.perf_counter()
            work()
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]


def size(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def measure(folder: Path, turns: int) -> None:
    """On every rank: make the engine, let both save and load by turns; rank 0 writes figures.json."""
    from distil.checkpoint.manifest import Position
    from distil.checkpoint.saving import Checkpoints
    from distil.checkpoint.tensors import sync
    from distil.config import Recipe
    from distil.engine.ranks import start_ranks, stop_ranks
    from distil.engine.wrapped import Engine
    from distil.placement import place

    ranks = start_ranks()
    recipe = Recipe.load(RECIPE)
    recipe = replace(recipe, data=replace(recipe.data, batch_size=ranks.world, micro_batch_size=1))
    placement = place("ds_config/zero1.json", recipe, ranks.world, "cpu", ("fp32",), "fp32")
    module = student()
    engine = Engine(module, [{"params": list(module.parameters())}], placement, ranks)
    theirs = engine._engine
    ids = torch.randint(1000, 30_000, (1, recipe.data.max_length))
    engine.micro_step(ids)
    figures = dict(zip(["step"], timed(turns, lambda: engine.micro_step(ids)), strict=True))
    ours = Checkpoints(folder / "ours", 1, ranks, placement, {})

    def clear() -> None:
        shutil.rmtree(folder / "theirs", ignore_errors=True)
        ranks.wait()

    def save_theirs() -> None:
        theirs.save_checkpoint(str(folder / "theirs"), tag="saved")

    def sync_theirs() -> None:
        for path in (folder / "theirs" / "saved").iterdir() if ranks.first else ():
            sync(path)
        ranks.wait()

    position = Position(1, 1, 512)
    found = timed(
        turns, clear, lambda: ours.begin(engine.state, position, {}), ours.finish, save_theirs, sync_theirs
    )  # fmt: skip
    figures |= {"begin": found[1], "published": found[2], "theirs": found[3], "theirs_synced": found[3] + found[4]}
    figures |= {"our_bytes": size(folder / "ours"), "their_bytes": size(folder / "theirs")}
    figures["restore"], figures["load"] = timed(
        turns,
        lambda: (ours.restore(engine.state, lambda line: None), ranks.wait()),
        lambda: (theirs.load_checkpoint(str(folder / "theirs"), tag="saved"), ranks.wait()),
    )
    figures["state"] = sum(p.numel() for p in module.parameters())
    if ranks.first:
        (folder / "figures.json").write_text(json.dumps(figures))
    engine.close()
    stop_ranks()


def student() -> torch.nn.Module:
    """DistilBERT's shape with random weights, and its masked-LM loss on all tokens."""
    import transformers

    class Student(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.model = transformers.DistilBertForMaskedLM(transformers.DistilBertConfig())

        def forward(self, ids: torch.Tensor) -> Output:
            loss = self.model(input_ids=ids, labels=ids).loss
            return Output(loss, loss.detach())

        def weights_changed(self) -> None:
            """Nothing is kept of them."""

    return Student()


def run(ranks: int, folder: Path, turns: int) -> dict[str, float]:
    """The figures of so many ranks, each in a process of its own."""
    start = [sys.executable] if ranks == 1 else ["deepspeed", "--num_gpus", str(ranks)]
    folder.mkdir()
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    line = [*start, __file__, "--measure", str(folder), "--turns", str(turns)]
    ended = subprocess.run(line, env=environment, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(ended.stdout[-2000:] + ended.stderr[-4000:])
    return json.loads((folder / "figures.json").read_text())


def table(found: dict[int, dict[str, float]]) -> list[str]:
    """All figures, a column for each number of ranks."""
    lines = [f"| | {' | '.join(f'{ranks} rank(s)' for ranks in found)} |", "|---" * (len(found) + 1) + "|"]
    for key, what in ROWS.items():
        values = [figures[key] for figures in found.values()]
        if key == "state":
            cells = [f"{3 * value / 1e6:.1f} M numbers" for value in values]
        else:
            cells = [f"{value / 1e6:,.1f} M" if key.endswith("bytes") else f"{value:.2f} s" for value in values]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return lines


def share(found: dict[int, dict[str, float]]) -> list[str]:
    """What checkpoints cost of a training of the recipe, as arithmetic."""
    from distil.config import Recipe

    recipe = Recipe.load(RECIPE)
    batch, every = recipe.data.batch_size, recipe.run.save_every
    steps = round(recipe.optimizer.epochs * CORPUS_TOKENS / (batch * recipe.data.max_length))
    there = PUBLISHED_HOURS * 3600 / steps
    lines = [
        "",
        f"The recipe `{RECIPE}` saves every {every} steps of {batch:,} sequences. {recipe.optimizer.epochs} epochs of "
        f"{CORPUS_TOKENS / 1e9} * 10^9 tokens are {steps:,} steps. In the published {PUBLISHED_HOURS} h of 8 V100 "
        f"a step takes {there:.0f} s: {every * there / 3600:.1f} h between two checkpoints. On this CPU a step is "
        f"{batch:,} / ranks of the measured ones, which leave out the teacher. Below, the part of training time that "
        "stands still. The interval of 8 V100 is arithmetic; what stands against it was measured here.",
        "",
        "| | interval, this CPU | ours | DeepSpeed's | ours, interval of 8 V100 | DeepSpeed's |",
        "|---|---|---|---|---|---|",
    ]
    for ranks, figures in found.items():
        here = every * figures["step"] * batch / ranks
        cells = [
            f"{100 * figures[key] / length:.1g} %" for length in (here, every * there) for key in ("begin", "theirs")
        ]
        lines.append(f"| {ranks} rank(s) | {here / 3600:,.0f} h | {' | '.join(cells)} |")
    return lines


def disk(folder: Path) -> str:
    """Kind of the file system that a folder is on; ends the program where that is memory."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    over = [(where, kind) for where, kind in mounts if folder.resolve().is_relative_to(where)]
    kind = max(over, key=lambda mount: len(mount[0]))[1]
    if kind in ("tmpfs", "ramfs"):
        sys.exit(f"error: {folder} is in memory ({kind}); give a folder on a disk: --folder")
    return kind


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="on the disk that is to be measured")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the tables to this file as well")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # what each rank is started with
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure, options.turns)
    options.folder.mkdir(parents=True, exist_ok=True)
    kind, load = disk(options.folder), os.getloadavg()[1]
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        found = {ranks: run(ranks, Path(scratch) / str(ranks), options.turns) for ranks in (1, 2)}
    from measure import machine

    lines = [*table(found), *share(found), ""]
    lines += [
        f"Made by `python {' '.join(sys.argv)}` on {date.today()}; {machine(torch.device('cpu'))}, "
        f"deepspeed {version('deepspeed')}; {kind} on a disk, loading from the page cache; medians of {options.turns}. "
        f"Other work ran on the machine: load {load:.1f} when this began."
    ]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(["# A checkpoint at DistilBERT's size, measured", "", *lines]) + "\n")


if __name__ == "__main__":
    main()
