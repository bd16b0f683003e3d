"""What a distilled model is worth beside its teacher.

evaluate.py guess "text with [MASK]" --model DIR_OR_NAME --teacher DIR_OR_NAME     what they guess for a masked word
evaluate.py speed --run RUN_DIR        sizes, seconds, latencies, throughput; the same quantised and as ONNX
"""

from __future__ import annotations

import os
import shlex
import sys

from distil import errors, options
from distil.commands import guess, speed

COMMANDS = {"guess": guess, "speed": speed}


def main() -> None:
    """Parse; each command refuses what it can before it loads the heavy libraries."""
    how = {"allow_abbrev": False, "formatter_class": options.Formatter}
    parser = options.Parser(description=__doc__, **how)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=options.Parser)
    for name, command in COMMANDS.items():
        command.add(commands.add_parser(name, help=command.HELP, description=command.__doc__, **how))
    chosen = parser.parse_args()
    sys.stdout.reconfigure(errors="replace")  # tokens have signs that not every terminal's encoding has
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # as in pretrain.py
    COMMANDS[chosen.command].run(chosen, shlex.join(["launch/evaluate.py", *sys.argv[1:]]))


if __name__ == "__main__":
    errors.leave(errors.run(main))
