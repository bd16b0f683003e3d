"""Distil a student from its teacher: one recipe, placed by one ds_config.

deepspeed launch/pretrain.py --deepspeed ds_config/zero1.json
python launch/pretrain.py --recipe distilbert-base-uncased --teacher bert-base-uncased --store data/wiki-books
"""

from __future__ import annotations

import os
import sys

from distil import errors, options, placement, stopping


def main() -> None:
    """Parse and refuse what can be refused at once; only then load the heavy libraries and run."""
    chosen, recipe = options.parse(sys.argv[1:], __doc__)
    placement.read_ds_config(chosen.deepspeed)
    stop = stopping.StopRequest(chosen.max_hours)
    stop.listen()

    # A rank that goes would otherwise be told in frames of C++; what a user needs of it, we tell.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    from distil.pretrain import pretrain

    pretrain(chosen, recipe, stop)


if __name__ == "__main__":
    errors.leave(errors.run(main))
