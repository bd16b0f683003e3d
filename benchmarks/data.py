"""The data plane: text to store, opening 10^9 tokens, assembling batches, four ranks on a machine, plans of any size.

    python benchmarks/data.py                                                 all sections, in minutes; 5 GB of disk
    python benchmarks/data.py --only batches                                  one of them
    python benchmarks/data.py --out benchmarks/results/data-cpu.md            kept

What is measured for its memory runs in a process of its own, whose growth is what it holds after the work less what it
held after its imports. Scratch files lie in a temporary folder, which is removed.
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
from datetime import date
from pathlib import Path

# Imported where they are measured: a worker process of binarize imports this file, and should not wait for torch.
SECTIONS = {
    "text": "Binarising text",
    "open": "Opening 10^9 tokens",
    "batches": "Assembling batches",
    "ranks": "Four ranks on one machine",
    "plan": "The plan at any size",
}


def main() -> None:
    """Measure, print as it goes, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=SECTIONS, help="one section instead of all")
    parser.add_argument("--out", type=Path, help="write the tables to this file as well")
    options = parser.parse_args()
    lines = ["# The data plane, measured", ""]
    print("\n".join(lines))
    with tempfile.TemporaryDirectory() as folder:
        for name in [options.only] if options.only else SECTIONS:
            section = [f"## {SECTIONS[name]}", "", *importlib.import_module(f"data_{name}").report(Path(folder))]
            print("\n".join(section), flush=True)
            lines += section
    lines.append(made_by(options.only))
    print(lines[-1])
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


def made_by(only: str | None) -> str:
    """How the figures came about."""
    import torch
    from measure import machine

    command = "python benchmarks/data.py" + (f" --only {only}" if only else "")
    return f"Made by `{command}` on {date.today()}; {machine(torch.device('cpu'))}."


if __name__ == "__main__":
    main()
