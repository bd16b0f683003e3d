"""A training step of BERT-base to DistilBERT: the published one, ours, ours without each technique, and the floor.

    python benchmarks/step.py                                                      the device that is there
    python benchmarks/step.py --profile --out benchmarks/results/step-cpu.md       kept; most of an hour on two cores
    python benchmarks/step.py --profile --micro_batch_size 128 --out benchmarks/results/step-gpu-128.md
    python benchmarks/step.py --losses 50                                          losses of the two over 50 steps

Every variant is a process of its own, with the memory and the allocator that it has there, and variants take turns
``--rounds`` times: figures are medians over rounds, with the spread of the published step's beside them. Tokens are
real ones, never pads. The floor is the step's matrix products alone by torch, those that multiply a weight forward in
the faster of two ways on a CPU, attention's by batched products. One rank has nothing to reduce: how often ranks do is
counted in tests/engine/test_step_costs.py.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch
from measure import machine
from step_setting import add_options

KEPT = {"THP_MEM_ALLOC_ENABLE": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "2147483647"}
PUBLISHED, OURS, FLOOR = "published", "ours", "floor"
Result = dict[str, Any]


def variants(device: torch.device) -> list[tuple[str, str, str | None]]:
    """Name, precision and what is done otherwise of everything that is measured here."""
    from step_ours import changes

    half = half_of(device)
    found = [(f"{PUBLISHED} {p}", p, None) for p in ("fp32", f"{half} autocast")]
    if device.type == "cpu":
        found += [(f"{name}, freed memory kept", precision, None) for name, precision, _ in found]
    found += [(f"{OURS} {p}", p, None) for p in ("fp32", half)]
    found += [(f"{OURS} {half} {change}", half, change) for change in changes(device)]
    return [*found, (f"{FLOOR} fp32", "fp32", None), (f"{FLOOR} {half}", half, None)]


def half_of(device: torch.device) -> str:
    """The 16 bits that a device trains in: bf16 from Ampere on, as the published step had fp16 on a V100."""
    return "bf16" if device.type == "cpu" or torch.cuda.get_device_capability() >= (8, 0) else "fp16"


def one(name: str, options: argparse.Namespace, device: torch.device) -> Result:
    """Measure a variant in this process."""
    import step_floor
    import step_ours
    import step_published

    precision, change = next((p, c) for n, p, c in variants(device) if n == name)
    if name.startswith(PUBLISHED):
        dtype = step_ours.DTYPES[precision.split()[0]] if "autocast" in precision else None
        result = step_published.measure(options, device, dtype)
    elif name.startswith(FLOOR):
        result = step_floor.measure(options, precision)
    else:
        result = step_ours.measure(options, precision, change)
    result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        result["memory"] = torch.cuda.max_memory_allocated()
    return result


def in_process(name: str, arguments: list[str]) -> Result:
    """Measure a variant in a process of its own."""
    environment = os.environ | (KEPT if name.startswith(PUBLISHED) and "kept" in name else {})
    command = [sys.executable, __file__, *arguments, "--one", name]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: exit code {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def table(rounds: list[dict[str, Result]], half: str) -> list[str]:
    """Markdown: medians over rounds."""

    def median(name: str, key: str) -> float:
        return statistics.median(each[name][key] for each in rounds)

    def speed(name: str) -> float:
        return statistics.median(each[name]["tokens"] / each[name]["seconds"] for each in rounds)

    base, best = f"{PUBLISHED} fp32", {p: f"{FLOOR} {p}" for p in ("fp32", half)}
    lines = [
        f"| | tokens/s | x published fp32 | x published {half} autocast | of the floor | MFU | peak GiB | waits |",
        "|---" * 8 + "|",
    ]
    for name in rounds[0]:
        floor = best[half if half in name else "fp32"]
        now = speed(name)
        ratios = f"{now / speed(base):.2f} | {now / speed(f'{PUBLISHED} {half} autocast'):.2f}"
        mfu = median(floor, "flops") * now / median(floor, "peak")
        waits = "" if name.startswith(FLOOR) else f"{median(name, 'waited') / median(name, 'seconds'):.1%}"
        memory = "" if name.startswith(FLOOR) else f"{median(name, 'memory') / 2**30:.2f}"
        lines.append(f"| {name} | {now:,.0f} | {ratios} | {now / speed(floor):.0%} | {mfu:.0%} | {memory} | {waits} |")
    spread = [each[base]["tokens"] / each[base]["seconds"] for each in rounds]
    lines += ["", f"{base} over {len(rounds)} rounds: {min(spread):,.1f} to {max(spread):,.1f} tokens/s. "]
    for precision, name in best.items():
        flops, most = median(name, "flops"), median(name, "peak")
        lines[-1] += f"{precision}: {flops / 1e6:.1f} MFLOP a token, square products at {most / 1e12:.2f} TFLOP/s. "
    return lines


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="variants with one of these in their names")
    parser.add_argument("--losses", type=int, metavar="STEPS", help="compare losses instead of speeds")
    parser.add_argument("--out", type=Path, help="write the table to this file as well")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out and not options.out.parent.is_dir():
        parser.error(f"no folder {options.out.parent}")
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if options.one:
        print(json.dumps(one(options.one, options, device)))
        return
    if options.losses:
        from step_losses import losses

        print(losses(options).told())
        return
    names = [name for name, *_ in variants(device)]
    needed = [name for name in names if name.startswith(FLOOR) or (name.startswith(PUBLISHED) and "kept" not in name)]
    names = [n for n in names if n in needed or not options.only or any(text in n for text in options.only)]
    rounds = []
    for number in range(options.rounds):
        rounds.append({})
        for name in names:
            rounds[-1][name] = result = in_process(name, sys.argv[1:])
            print(f"round {number + 1}: {name}: {result['tokens'] / result['seconds']:,.1f} tokens/s", file=sys.stderr)
    head = (
        f"{date.today()}; {machine(device)}; {options.store}, sequences of at most {options.max_length} tokens, "
        f"micro-batches of {options.micro_batch_size} of these, {options.accumulation} accumulated; medians of "
        f"{options.rounds} rounds of {options.steps} steps."
    )
    lines = [head, "", *table(rounds, half_of(device))]
    for name, result in rounds[-1].items():
        if result.get("longest"):
            lines += ["", f"What takes longest, {name}:", "", "| operation | share |", "|---|---|"]
            lines += [f"| `{operation}` | {share:.1%} |" for operation, share in result["longest"]]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(["# A step, measured", "", *lines, ""]))


if __name__ == "__main__":
    main()
