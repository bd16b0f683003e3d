"""From one GPU to 512 on paper, and from one rank to two on this machine, with the reduction and without.

python benchmarks/scaling.py                    # both; the measurement wants two cores and nothing else on them
python benchmarks/scaling.py --paper            # the tables alone, in seconds

Writes benchmarks/results/scaling.md. The paper's part is launch/plan.py's model (distil/planning): data sheets, assumed
shares of what these state, and links. The measured part trains the same steps three ways by turns, a core a rank: one
rank; two ranks; two processes of one rank each that know nothing of one another, which is two ranks with the reduction
removed. All three are under ZeRO-0, where every rank updates all parameters, as a lone process does: under ZeRO-1 two
ranks would update half of them each, and the difference would be of that, too.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from distil.config import Recipe
from distil.markdown import aligned
from distil.placement import place
from distil.planning.communication import bandwidth
from distil.planning.machines import DEVICES, HOP_SECONDS, LINK_SHARE, Machines
from distil.planning.outline import CORPORA, outline
from distil.planning.prediction import Prediction, predict
from distil.planning.rates import Sheet
from distil.planning.table import duration

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks/results/scaling.md"
RECIPE = "distilbert-base-uncased"
TOKENS = CORPORA[RECIPE]  # whatever is here: a plan would look at a store of that name
PAPER_CONFIG, MEASURED_CONFIG = (ROOT / f"ds_config/{name}.json" for name in ("zero1", "zero0"))
MEASURED_PART = "## From one rank to two, measured"
SHOWN = ("V100", "A100-80GB", "H100", "H200")
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
MEASURED = ("quickstart", RECIPE)
MEASURED_LENGTH = 128
PRECISION = "bf16"
POLL_SECONDS = 0.2
WAYS = {
    "one rank": (1, 1),
    "two ranks": (1, 2),
    "two processes of one rank": (2, 1),
}  # processes' groups, ranks in each


def on_paper(name: str, count: int) -> Prediction:
    """The published job on so many of a device."""
    machines = Machines(DEVICES[name], count)
    recipe = Recipe.load(RECIPE)
    placed = place(PAPER_CONFIG, recipe, count, "cuda", machines.device.precisions, "auto")
    return predict(outline(recipe, placed, TOKENS), machines, Sheet(machines.device, placed.precision))


def paper() -> Iterator[str]:
    """A table a device."""
    data = Recipe.load(RECIPE).data
    yield (
        f"The recipe `{RECIPE}` by its published numbers, {data.batch_size} x {data.max_length} tokens a step in "
        f"micro-batches of {data.micro_batch_size} x {data.max_length}, ZeRO-1, fp16. All of it is *predicted*. Of a "
        f"link's rate {LINK_SHARE:.0%} and {HOP_SECONDS * 1e6:.0f} us a hop are assumed; links are of one direction. "
        "Layers are eager ones, and times leave out evaluations and checkpoints. "
        "The share of the matrix peak is that of large products, so speeds are the most that can be hoped for."
    )
    for name in SHOWN:
        device, alone, rows = DEVICES[name], on_paper(name, 1), []
        for count in COUNTS:
            found = on_paper(name, count)
            sent = found.communication
            rows.append([
                f"{count}", f"{found.outline.placement.accumulation}", f"{found.tokens_a_second:,.0f}",
                f"{found.tokens_a_second / count / alone.tokens_a_second:.1%}",
                f"{bandwidth(found.machines) / 1e9:.0f} GB/s" if count > 1 else "", f"{sent.seconds * 1e3:.1f} ms",
                f"{(sent.seconds - sent.hidden) / found.step_seconds:.1%}", duration(found.hours),
            ])  # fmt: skip
        yield (
            f"**{device.name}**, {device.link / 1e9:.0f} GB/s between GPUs of a node, {device.network / 1e9:.0f} GB/s "
            f"out of it ({device.node}); of the matrix peak {device.matrix.share:.0%} ({device.matrix.source})"
        )
        columns = "GPUs", "accumulated", "tokens/s", "of linear", "ring", "communication a step", "of the step", "time"
        yield aligned(columns, rows)


def worker(recipe_name: str, steps: int) -> None:
    """One rank: trains and prints what it timed as JSON."""
    from distil.engine.ranks import start_ranks, stop_ranks
    from distil.planning.rehearsal import rehearse, shortened

    ranks = start_ranks()

    def placed(of: Recipe) -> object:
        return place(MEASURED_CONFIG, of, ranks.world, "cpu", (PRECISION, "fp32"), PRECISION)

    recipe = Recipe.load(recipe_name, {"max_length": MEASURED_LENGTH})
    job = shortened(outline(recipe, placed(recipe), 1e6), placed, ranks.world)
    found = rehearse(job, ranks, 0.0, steps)
    print(json.dumps({"tokens_a_second": found.tokens_a_second, "step": found.seconds / found.steps}), flush=True)
    stop_ranks()


def timed(recipe: str, steps: int, groups: int, ranks: int, cores: list[int]) -> tuple[float, float]:
    """Tokens a second of all processes together, and the mean seconds of a step; each has a core of its own."""
    started: list[tuple[subprocess.Popen[str], IO[str]]] = []
    for group in range(groups):
        port = free_port()
        for rank in range(ranks):
            core = cores[group * ranks + rank]
            place_of = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank, "LOCAL_SIZE": ranks, "MASTER_PORT": port}
            variables = {name: str(value) for name, value in place_of.items()} if ranks > 1 else {}
            variables |= {"MASTER_ADDR": "127.0.0.1"} if ranks > 1 else {}
            variables |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
            command = ["taskset", "-c", str(core), sys.executable, __file__, "--worker", recipe, "--steps", str(steps)]
            said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - a pipe that nobody reads could fill and stop its rank
            started.append((subprocess.Popen(command, env=os.environ | variables, stdout=said, text=True), said))
    found = [json.loads(text.splitlines()[-1]) for text in outputs(started)]
    return sum(one["tokens_a_second"] for one in found), statistics.mean(one["step"] for one in found)


def outputs(started: list[tuple[subprocess.Popen[str], IO[str]]]) -> list[str]:
    """What processes have written to their files, once all have ended.

    Raises SystemExit as soon as one has failed: the others, which would wait for it, are ended.
    """
    processes = [process for process, _ in started]
    try:
        while None in (codes := [process.poll() for process in processes]) and not any(codes):
            time.sleep(POLL_SECONDS)
    finally:
        for process in processes:
            process.kill()  # of one that has ended, nothing
            process.wait()
    if failed := [code for code in codes if code]:
        raise SystemExit(f"a rank ended with {failed[0]}; its own words are above")
    for _, said in started:
        said.seek(0)
    return [said.read() for _, said in started]


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def measured(recipes: list[str], steps: int, rounds: int) -> Iterator[str]:
    """A table a recipe, medians over rounds in which the ways take turns."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        yield "*Not measured: two cores are needed, and this process may use one.*"
        return
    from distil.planning.rehearsal import ACCUMULATED

    for recipe in recipes:
        speeds: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way, (groups, ranks) in WAYS.items():
                speeds[way].append(timed(recipe, steps, groups, ranks, cores))
        tokens = {way: statistics.median(one for one, _ in of) for way, of in speeds.items()}
        seconds = {way: statistics.median(one for _, one in of) for way, of in speeds.items()}
        alone = tokens["one rank"]
        rows = [[way, f"{tokens[way]:,.0f}", f"{tokens[way] / alone:.2f} x", f"{seconds[way]:.2f} s"] for way in WAYS]
        apart = seconds["two ranks"] - seconds["two processes of one rank"]
        yield (
            f"Recipe `{recipe}` at {MEASURED_LENGTH} tokens, {PRECISION}, ZeRO-0, {ACCUMULATED} micro-batches a rank "
            f"and step, every rank updating all parameters, {steps} steps after the first, medians of {rounds} rounds, "
            f"*measured*: reducing, and waiting for one another, takes the ranks {apart * 1e3:,.0f} ms a step, "
            f"{apart / seconds['two ranks']:.1%} of it."
        )
        yield aligned(("way, a core a rank", "tokens/s", "of one rank", "a step"), rows)


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def machine() -> str:
    """The processor, as Linux has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown processor")
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def main() -> None:
    """Write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", action="store_true", help="the tables alone; --out must have no measured part")
    parser.add_argument("--recipes", nargs="+", default=MEASURED, help="that are measured")
    parser.add_argument("--steps", type=positive, default=4, help="timed steps of each process")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.worker:
        worker(chosen.worker, chosen.steps)
        return
    if chosen.paper and chosen.out.exists() and MEASURED_PART in chosen.out.read_text():
        raise SystemExit(f"{chosen.out} has a measured part, which --paper would drop; give --out another file")
    blocks = ["# Scaling", "## From 1 to 512 GPUs, on paper", *paper()]
    if not chosen.paper:
        today = datetime.date.today().isoformat()
        blocks += [MEASURED_PART, f"{machine()}; {today}; `python benchmarks/scaling.py`"]
        blocks += measured(list(chosen.recipes), chosen.steps, chosen.rounds)
    chosen.out.write_text("\n\n".join(blocks) + "\n")
    print(chosen.out.read_text())


if __name__ == "__main__":
    main()
