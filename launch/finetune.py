"""Fine-tune a model for a task: from its labels, from a fitted teacher, or from both.

finetune.py --task sst2 --model runs/quickstart/student
finetune.py --task squad --model M --teacher T                      # second distillation: T is fitted to squad
finetune.py --task imdb --teacher T --student_depth 3               # direct distillation, without pretraining
finetune.py --train a.csv --validation b.csv --text_columns title body --label_column topic --model M
deepspeed launch/finetune.py --deepspeed ds_config/zero1.json --task mnli --model M
"""

from __future__ import annotations

import os
import sys

from distil import errors, placement, stopping
from distil.finetuning import options


def main() -> None:
    """Parse and refuse what can be refused at once; only then load the heavy libraries and run."""
    placing, numbers = options.parse(sys.argv[1:], __doc__)
    placement.read_ds_config(placing.deepspeed)
    stop = stopping.StopRequest(placing.max_hours)
    stop.listen()

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # as in pretrain.py
    from distil.finetuning.run import finetune

    finetune(placing, numbers, stop)


if __name__ == "__main__":
    errors.leave(errors.run(main))
