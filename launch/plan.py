"""What a job will take before it is started: tokens, FLOPs, speed, hours, memory, communication, energy and cost.

plan.py --recipe distilbert-base-uncased --gpus 8xV100
plan.py --recipe distilbert-base-uncased --gpus 16xA100-80GB --deepspeed ds_config/zero2.json --price_gpu_hour 2
plan.py --gpus this --measure

Nothing is downloaded: a teacher or a text that is not here is planned by its published size.
"""

from __future__ import annotations

import os
import sys

from distil import errors, placement
from distil.planning import options


def main() -> None:
    """Parse and refuse what can be refused at once; then print the plan."""
    asked, recipe = options.parse(sys.argv[1:], __doc__)
    placement.read_ds_config(asked.deepspeed)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from distil.planning.plan import plan

    for text in plan(asked, recipe):
        print(text, flush=True)


if __name__ == "__main__":
    errors.leave(errors.run(main))
