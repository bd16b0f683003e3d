"""``evaluate.py suite``: a model fine-tuned on tasks, with several seeds, beside its teacher, as the paper's Table 1.

Ways, by --ways: plain fine-tunes the model on labels; second fine-tunes it under the teacher, which has been fitted to
the task with the same seed; direct cuts a student from that fitted teacher, without pretraining: of the model's family
and depth, unless --student, --student_depth or --student_layers say otherwise. Each run has its folder,
FOLDER/TASK/LABEL-seedN, is the run that launch/finetune.py makes with the same numbers, and loses its checkpoints when
it is finished; the same command goes on where it was, or prints the tables of what is done. Weights of the loss are for
the ways with a teacher.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distil import placement, stopping
from distil.commands import models
from distil.finetuning import options, suite_options
from distil.options import boolean

HELP = "a model fine-tuned on GLUE or other tasks beside its teacher, medians over seeds, and what it keeps"
SOURCE = ("task", "train", "validation", "test", "text_columns", "label_column", "regression")
FOLDER = f"folder of the tables and of all runs; default: {suite_options.FOLDER}"


def add(parser: argparse.ArgumentParser) -> None:
    """The options: those of the suite, and all of launch/finetune.py's but for the task."""
    parser.epilog = options.LOSSES
    models.add(parser)
    suite = parser.add_argument_group("suite")
    suite.add_argument(
        "--tasks", metavar="NAME,...", default="glue", help="tasks by name, with a comma between; glue is all nine"
    )
    suite.add_argument("--seeds", metavar="N", type=int, default=5, help="runs of each: --seed, and the next")
    suite.add_argument("--ways", metavar="WAY,...", default="plain", help=f"of {', '.join(suite_options.WAYS)}")
    suite.add_argument(
        "--only", metavar="K/N", help="do the Kth of N shares of all pairs of task and seed, from 0: of a SLURM array"
    )
    suite.add_argument(
        "--cross", metavar="true|false", type=boolean, default=True, help="try each task's students on the other tasks"
    )
    options.add_options(parser, (*SOURCE, "model", "teacher"), FOLDER)


def run(chosen: argparse.Namespace, command: str) -> None:
    """Make the runs, and the tables once all are there. Raises ConfigError, DataError, RunError and Stopped."""
    models.check(chosen)
    if chosen.run:
        *teacher, (_, chosen.model) = models.named(chosen)
        chosen.teacher = teacher[0][1] if teacher else None
    names = ("command", "run", "out", "local_rank")
    asked = suite_options.suite_of({name: value for name, value in vars(chosen).items() if name not in names})
    placement.read_ds_config(asked.placing.deepspeed)
    stop = stopping.StopRequest(asked.placing.max_hours)
    stop.listen()

    from distil.finetuning.suite import fit

    fit(asked, stop, command, Path(chosen.out) if chosen.out else None)
