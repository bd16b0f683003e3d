"""A run of each family in one launch: whole, and in two parts.

Started by the launcher: ``family_stage.py WORK CASE ...``. Every case trains LAST steps in WORK/CASE/whole, HALF of
them in WORK/CASE/parts, and goes on there to the last; what was printed goes to WORK/CASE/printed.txt.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from distil import errors
from distil.engine.ranks import stop_ranks
from distil.errors import RunError

HALF, LAST = 15, 30


def main() -> None:
    """Run the cases and leave; the first that fails ends it."""
    from families import PLACEMENTS
    from stage import Stage

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    work = Path(sys.argv[1])
    stage = Stage(work, work)
    for case in sys.argv[2:]:
        stage.material = work / case
        where, precision = PLACEMENTS[case]
        printed = []
        for out, steps in (("whole", LAST), ("parts", HALF), ("parts", LAST)):
            made = stage.train(
                work / case / out, steps, "--deepspeed", f"ds_config/{where}.json", "--precision", precision
            )
            if made.code:
                raise RunError(f"{case}: {made.message}")
            printed.append(made.printed)
        if stage.ranks.first:
            (work / case / "printed.txt").write_text("".join(printed))
    stage.guard.heartbeat.end()
    stop_ranks()


if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parents[1] / folder) for folder in ("end_to_end", "models", "faults")]
    sys.argv = [a for a in sys.argv if not a.startswith("--local_rank")]
    errors.leave(errors.run(main))
