"""Say what this machine can run, and what to do where it cannot. Exit code 78 where something fails."""

from __future__ import annotations

import argparse
import sys

from distil import errors, options


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ConfigError."""
    parser = options.Parser(description=__doc__, allow_abbrev=False, formatter_class=options.Formatter)
    parser.add_argument(
        "--build_ops", action="store_true", help="really build DeepSpeed's extensions, which takes minutes"
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Print a line for each finding, as it is found."""
    chosen = parse()
    from distil.doctor import FAIL, examine

    failed = 0
    for finding in examine(chosen.build_ops):
        print(finding, flush=True)
        failed += finding.state == FAIL
    return errors.EXIT_CONFIG if failed else 0


if __name__ == "__main__":
    sys.exit(errors.run(main))
