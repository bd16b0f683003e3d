"""Train a recipe whole and without each of its parts, with several seeds, and print what each part is worth.

ablate.py --without ce,mlm,cos,init --steps 100
deepspeed --num_gpus 2 launch/ablate.py --recipe R --without ce,ce+cos --seeds 5

Every run has its folder; the same command goes on where it was, or prints the table of what is done.
"""

from __future__ import annotations

import os
import shlex
import sys

from distil import errors, placement, stopping, variants


def main() -> None:
    """Parse and refuse what can be refused at once; only then load the heavy libraries and run."""
    chosen, found = variants.parse(sys.argv[1:], __doc__)
    placement.read_ds_config(chosen.deepspeed)
    stop = stopping.StopRequest(chosen.max_hours)
    stop.listen()
    sys.stdout.reconfigure(errors="replace")  # formulas have signs that not every terminal's encoding has

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # as in pretrain.py
    from distil.ablation import ablate

    typed = [word for word in sys.argv[1:] if not word.startswith("--local_rank")]  # the launcher's own
    ablate(chosen, found, stop, shlex.join(["launch/ablate.py", *typed]))


if __name__ == "__main__":
    errors.leave(errors.run(main))
