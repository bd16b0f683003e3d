"""The command line of fine-tuning: the task, the models, every number by its name, and how the run is placed."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from distil.errors import ConfigError
from distil.fields import fill
from distil.options import Formatter, Parser, Placing, add_group, add_placing_options, parsed
from distil.tables import Optimizer, Run
from distil.tasks.tables import TaskData, TaskLoss, TaskModel, TaskSource

GROUPS: dict[str, type] = {
    "source": TaskSource, "start": TaskModel, "loss": TaskLoss, "data": TaskData, "optimizer": Optimizer, "run": Run,
}  # fmt: skip
TITLES = {"source": "task", "start": "models"}
# BERT's own for GLUE (Devlin et al. 2019, appendix A.3), with the smallest of its learning rates but one.
OPTIMIZER = {
    "lr": 3e-5, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_eps": 1e-6, "weight_decay": 0.01, "warmup_fraction": 0.1,
    "max_grad_norm": 1.0, "epochs": 3, "seed": 1,
}  # fmt: skip
RUN = {"eval_every": 0}
# Weights of the loss: of labels alone; of a second distillation, as the published code for SQuAD has them; of direct
# distillation into a student that is cut from the teacher.
PLAIN = {"alpha_task": 1.0, "alpha_ce": 0.0, "alpha_cos": 0.0}
SECOND = {"alpha_task": 0.5, "alpha_ce": 0.5, "alpha_cos": 0.0}
DIRECT = {"alpha_task": 5.0, "alpha_ce": 1.0, "alpha_cos": 2.0}
FOLDER = "folder of the run; default: runs/finetune-TASK, or the next free number"
LOSSES = """
weights of the loss where none is given: of labels alone --alpha_task 1; with --model and --teacher (a second
distillation) --alpha_task 0.5 --alpha_ce 0.5; with --teacher alone (direct distillation) --alpha_task 5 --alpha_ce 1
--alpha_cos 2"""


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """Every number of a fine-tuning; ``called`` is what it is called in a message."""

    source: TaskSource
    start: TaskModel
    loss: TaskLoss
    data: TaskData
    optimizer: Optimizer
    run: Run

    @property
    def called(self) -> str:
        """What it is called in a message."""
        return f"the fine-tuning of {self.source.task or self.source.train}"

    def numbers(self) -> dict[str, dict[str, Any]]:
        """Every number that decides the trained weights, as plain values a JSON file can hold."""
        groups = {name: dataclasses.asdict(getattr(self, name)) for name in ("loss", "data", "optimizer")}
        shape = dataclasses.asdict(self.start)
        del shape["model"], shape["teacher"]  # known by their weights, not by where they lie
        shape["student_layers"] = list(shape["student_layers"])
        return {"student": {} if self.start.model else shape, **groups}


def numbers_of(given: dict[str, Any]) -> FineTuning:
    """The numbers with those that are ``given``, by name, in place of defaults. Raises ConfigError."""
    given = dict(given)
    groups = {}
    for title, group in GROUPS.items():
        names = [f.name for f in dataclasses.fields(group)]
        values = {name: given.pop(name) for name in names if name in given}
        defaults = {"optimizer": OPTIMIZER, "run": RUN}.get(title, {})
        if title == "loss":
            defaults = PLAIN if not groups["start"].teacher else SECOND if groups["start"].model else DIRECT
        groups[title] = fill(group, defaults | values, where="command line")
    assert not given, given
    if groups["loss"].needs_teacher and not groups["start"].teacher:
        raise ConfigError("alpha_ce and alpha_cos compare with a teacher, and there is none; give --teacher")
    return FineTuning(**groups)


def add_options(parser: argparse.ArgumentParser, leave_out: Collection[str] = (), folder: str = FOLDER) -> None:
    """An option for each number but those to ``leave_out``, and for how the run is placed."""
    for title, group in GROUPS.items():
        defaults = {"optimizer": OPTIMIZER, "run": RUN, "loss": dict.fromkeys(PLAIN, "see below")}.get(title, {})
        shown = {f.name: defaults.get(f.name, f.default) for f in dataclasses.fields(group)}
        add_group(parser, TITLES.get(title, title), group, argparse.Namespace(**shown), leave_out)
    placing = parser.add_argument_group("placement")
    add_placing_options(placing, folder)


def parse(arguments: Sequence[str], description: str) -> tuple[Placing, FineTuning]:
    """How the run is placed, and every number. Raises ConfigError; ``--help`` prints and exits."""
    parser = Parser(description=description, epilog=LOSSES, allow_abbrev=False, formatter_class=Formatter)
    add_options(parser)
    given = parsed(parser, arguments)
    placing = {f.name: given.pop(f.name) for f in dataclasses.fields(Placing)}
    del given["local_rank"]
    return Placing(**placing), numbers_of(given)
