"""The tables of fine-tuning: every number that decides its result, documented where it is declared and in range."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from distil.errors import ConfigError
from distil.fields import option, require
from distil.tables import SAME, TEACHER, Model
from distil.tasks.task import TEST, TRAIN, VALIDATION


@dataclass(frozen=True, kw_only=True)
class TaskLoss:
    """What a fine-tuned model is trained on: the task's labels, a fitted teacher's answers, or both."""

    temperature: float = option("T of the softened distributions", default=2.0)
    alpha_task: float = option("weight of the task's own loss, against the labels", default=1.0)
    alpha_ce: float = option(
        "weight of T^2 KL(teacher || student) over the classes, or over the places of an answer's start and end; of a "
        "regression of the squared difference of the outputs", default=0.0,
    )  # fmt: skip
    alpha_cos: float = option("weight of 1 - cosine of the last hidden states of [CLS]", default=0.0)

    def __post_init__(self) -> None:
        require(self.temperature > 0, "temperature", self.temperature, "above 0")
        for name in ("alpha_task", "alpha_ce", "alpha_cos"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        if not self.alpha_task and not self.alpha_ce:
            raise ConfigError(
                "alpha_task and alpha_ce are 0, so nothing trains the head; give --alpha_task or --alpha_ce above 0"
            )

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with the teacher."""
        return self.alpha_ce > 0 or self.alpha_cos > 0

    @property
    def formula(self) -> str:
        """The loss in words."""
        terms = {"task": self.alpha_task, "KL": self.alpha_ce, "COS": self.alpha_cos}
        text = " + ".join(f"{alpha:g} {name}" for name, alpha in terms.items() if alpha)
        return text + (f", T = {self.temperature:g}" if self.alpha_ce else "")


@dataclass(frozen=True, kw_only=True)
class TaskModel:
    """Where a fine-tuned model comes from, and what teaches it."""

    model: str = option(
        "what is fine-tuned: folder or hub name of a language model, or of one fitted to a task; without it a student "
        "is cut from the teacher", default="", metavar="DIR_OR_NAME",
    )  # fmt: skip
    teacher: str = option(
        "folder or hub name of a model fitted to the same task, to be distilled", default="", metavar="DIR_OR_NAME"
    )
    student: str = option("family of a student that is cut from the teacher, or same as the teacher's", default=SAME)
    student_depth: int = option("layers of it, evenly spread over the teacher's (0: all)", default=0)
    student_layers: tuple[int, ...] = option("instead of student_depth, by hand: teacher layers, from 0", default=())
    initial_weights: str = option("of its layers, teacher: the teacher's; random: as a new model's", default=TEACHER)
    dropout: float = option("its dropout; a model that is given keeps its own", default=0.1)

    def __post_init__(self) -> None:
        if not self.model and not self.teacher:
            raise ConfigError(
                "nothing to fine-tune: give --model DIR_OR_NAME, or --teacher with --student_depth for a student of it"
            )
        of_student = [f for f in dataclasses.fields(self) if f.name not in ("model", "teacher")]
        cut = [f.name for f in of_student if getattr(self, f.name) != f.default]
        if self.model and cut:
            raise ConfigError(
                f"{cut[0]} is for a student cut from the teacher, but --model {self.model} is given: leave out one"
            )
        self.shape()

    def shape(self) -> Model:
        """The same as training on text words it, for a student that is cut from the teacher."""
        return Model(
            teacher=self.teacher, student=self.student, student_depth=self.student_depth,
            student_layers=self.student_layers, initial_weights=self.initial_weights, dropout=self.dropout,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """How much of a task is read at a time; sizes count sequences, of which a long context makes several."""

    max_length: int = option(
        "longest sequence in tokens; longer texts are cut, contexts in windows (0: the task's)", default=0
    )
    stride: int = option("tokens that two windows of a long context share (0: the task's)", default=0)
    batch_size: int = option("global batch, in sequences", default=32)
    micro_batch_size: int = option("micro-batch, in sequences", default=8)
    train_examples: int = option("train on so many, the same ones for every seed (0: all)", default=0)
    validation_examples: int = option("judge on so many, the same ones for every seed (0: all)", default=0)

    def __post_init__(self) -> None:
        for name in ("max_length", "stride", "train_examples", "validation_examples"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        for name in ("batch_size", "micro_batch_size"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        if self.batch_size % self.micro_batch_size:
            raise ConfigError(
                f"contradictory batch numbers: batch_size {self.batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size}; give another of them"
            )

    @property
    def micro_batches(self) -> int:
        """Micro-batches in one global batch, over all ranks."""
        return self.batch_size // self.micro_batch_size


@dataclass(frozen=True, kw_only=True)
class TaskSource:
    """The task: one by its name, or files of one's own with named columns."""

    task: str = option(
        "cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte, wnli, imdb, rotten-tomatoes, squad or squad_v2", default="",
        metavar="NAME",
    )  # fmt: skip
    data: str = option("folder of its files, or sample:NAME; without it the hub", default="", metavar="DIR")
    train: str = option("file to train on: .csv, .tsv, .jsonl or .parquet", default="", metavar="FILE")
    validation: str = option("file to judge on", default="", metavar="FILE")
    test: str = option(
        "file to judge on where there is no validation, and for models of other tasks", default="", metavar="FILE"
    )
    text_columns: tuple[str, ...] = option(
        "columns of the text, one or two (default: text, or the task's)", default=(), metavar="NAME"
    )
    label_column: str = option("column of the label (default: label, or the task's)", default="")
    regression: bool = option("labels there are values, not classes", default=False)

    def __post_init__(self) -> None:
        if not self.task and not self.train:
            raise ConfigError("no task: give --task NAME, or --train and --validation FILE with --text_columns")
        if self.task and self.regression:
            raise ConfigError(f"task {self.task} says itself what its labels are: leave out --regression, or --task")
        if self.data and self.files:
            raise ConfigError(f"data is {self.data}, but files are named, too: leave out --data, or the files")

    @property
    def files(self) -> dict[str, str]:
        """The files that are named, by split."""
        named = {TRAIN: self.train, VALIDATION: self.validation, TEST: self.test}
        return {split: path for split, path in named.items() if path}
