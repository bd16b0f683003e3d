"""What a distilled model is worth beside its teacher.

evaluate.py guess "text with [MASK]" --model DIR_OR_NAME --teacher DIR_OR_NAME     what they guess for a masked word
evaluate.py speed --run RUN_DIR        sizes, seconds, latencies, throughput; the same quantised and as ONNX
evaluate.py suite --model M --teacher T --tasks glue --seeds 5      fine-tuned on tasks, beside the teacher's figures
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys

from distil import errors, options
from distil.commands import guess, speed, suite

COMMANDS = {"guess": guess, "speed": speed, "suite": suite}


def main() -> None:
    """Parse; each command refuses what it can before it loads the heavy libraries."""
    how = {"allow_abbrev": False, "formatter_class": options.Formatter}
    parser = options.Parser(description=__doc__, **how)
    # The launcher passes its own number; ranks read it from the environment.
    parser.add_argument("--local_rank", type=int, default=0, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=options.Parser)
    for name, command in COMMANDS.items():
        command.add(commands.add_parser(name, help=command.HELP, description=command.__doc__, **how))
    chosen = argparse.Namespace(**options.parsed(parser, sys.argv[1:]))
    sys.stdout.reconfigure(errors="replace")  # tokens have signs that not every terminal's encoding has
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # as in pretrain.py
    typed = [word for word in sys.argv[1:] if not word.startswith("--local_rank")]
    COMMANDS[chosen.command].run(chosen, shlex.join(["launch/evaluate.py", *typed]))


if __name__ == "__main__":
    errors.leave(errors.run(main))
