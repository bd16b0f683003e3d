"""Say what a job will find here, and what to do about what it will not: this machine, the network, disk and hosts.

doctor.py
doctor.py --recipe distilbert-base-uncased --output_dir runs/distilbert --hostfile hostfile

Exit code 78 where something fails.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator

from distil import errors, hosts, options
from distil.config import Recipe


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ConfigError."""
    parser = options.Parser(description=__doc__, allow_abbrev=False, formatter_class=options.Formatter)
    parser.add_argument(
        "--build_ops", action="store_true", help="really build DeepSpeed's extensions, which takes minutes"
    )
    parser.add_argument("--recipe", metavar="NAME", default=options.DEFAULT_RECIPE, help="whose checkpoints are to fit")
    parser.add_argument("--teacher", metavar="NAME_OR_DIR", help="another teacher than the recipe's")
    parser.add_argument("--output_dir", metavar="DIR", help="folder of the run: can it be written, is there room?")
    parser.add_argument("--hostfile", metavar="FILE", help="hosts: login, versions, clocks, all-reduce")
    parser.add_argument("--ssh_port", metavar="N", type=int, help="where not as ssh has it")
    parser.add_argument("--master_port", metavar="N", type=int, help="where ranks are to meet (default: 29500)")
    chosen = parser.parse_args(arguments)
    hosts.check_port(chosen.ssh_port, "--ssh_port")
    hosts.check_port(chosen.master_port, "--master_port")
    return chosen


def findings(chosen: argparse.Namespace, recipe: Recipe) -> Iterator[object]:
    """Everything asked for, as it is found."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a teacher is looked at where it lies, not downloaded
    from distil.doctor import machine, network, storage

    yield from machine.examine(chosen.build_ops)
    if chosen.output_dir:
        yield from storage.examine(chosen.output_dir, recipe)
    meet_at = chosen.master_port or 29500
    yield network.port(meet_at, needed=bool(chosen.master_port or chosen.hostfile))
    yield network.all_reduce()
    if chosen.hostfile:
        yield from network.of_hosts(chosen.hostfile, chosen.ssh_port, meet_at, chosen.output_dir)


def main() -> int:
    """Print a line for each finding."""
    chosen = parse()
    recipe = Recipe.load(chosen.recipe, {"teacher": chosen.teacher} if chosen.teacher else {})
    failed = 0
    for finding in findings(chosen, recipe):
        print(finding, flush=True)
        failed += finding.state == "fail"
    return errors.EXIT_CONFIG if failed else 0


if __name__ == "__main__":
    sys.exit(errors.run(main))
