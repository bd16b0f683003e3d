"""What is refused of a suite before its first run, though it would be found only when its turn comes, after hours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from distil.data.samples import PREFIX
from distil.data.tokenizer import fingerprint, load_tokenizer
from distil.errors import ConfigError
from distil.finetuning.job import task_of
from distil.finetuning.suite_folder import TOTAL, Member
from distil.finetuning.suite_options import DIRECT, SECOND, TAUGHT, TEACHER, Suite
from distil.models.families import family_of
from distil.models.loading import load_config
from distil.models.shape import shape_of
from distil.rundir import RESULTS, RUN
from distil.tasks.reading import read
from distil.tasks.task import TRAIN


def shaped(suite: Suite) -> Suite:
    """The suite, with the shape of a student that is cut from a teacher: the model's own, where none is given.

    Raises ConfigError and DataError for models that cannot be what they are to be.
    """
    configs = {name: load_config(name) for name in (suite.model, suite.teacher) if name}
    tokenizers = {name: fingerprint(load_tokenizer(name)) for name in configs}
    if SECOND in suite.labels and tokenizers[suite.model] != tokenizers[suite.teacher]:
        raise ConfigError(
            f"model {suite.model} and teacher {suite.teacher} have different tokenizers, so that the one cannot teach "
            "the other; give another --teacher, or --ways without second"
        )
    width = {name: family_of(config).number(config, "hidden") for name, config in configs.items()}
    if suite.loss.get("alpha_cos") and SECOND in suite.labels and width[suite.model] != width[suite.teacher]:
        raise ConfigError(
            f"alpha_cos compares hidden states: {suite.model} has {width[suite.model]} dimensions, {suite.teacher} "
            f"{width[suite.teacher]}; give --alpha_cos 0, or --ways without second"
        )
    longest = {name: family_of(config).longest(config) for name, config in configs.items()}
    for task in suite.tasks:
        numbers = suite.numbers(task, suite.labels[0], suite.seeds[0])
        wanted = task_of(numbers.source, numbers.data).max_length
        for name, positions in longest.items():
            if wanted > positions:
                raise ConfigError(
                    f"sequences of {task.name} have up to {wanted} tokens, {name} has {positions} positions; give "
                    f"--max_length {positions} or less"
                )
    if DIRECT not in suite.labels:
        return suite
    if not suite.shaped():
        config = configs[suite.model]
        family = family_of(config)
        own = {"student": family.name, "student_depth": family.number(config, "layers")}
        suite = replace(suite, cut=own | dict(suite.cut))
    shape_of(configs[suite.teacher], suite.numbers(suite.tasks[0], DIRECT, suite.seeds[0]).start.shape())
    return suite


def refuse_other_length(suite: Suite, members: Sequence[Member]) -> None:
    """Raise ConfigError where a teacher would be trained on that has taught already, when it was not so far."""
    for one in members:
        total = one.notes().get(TOTAL) if one.label == TEACHER and (one.folder / RESULTS).exists() else None
        if total is None or (step := one.results().step) >= min(total, suite.placing.max_steps or total):
            continue
        for label in TAUGHT:
            pupil = suite.member_folder(one.task, label, one.seed)
            if (pupil / RUN).exists():
                raise ConfigError(
                    f"{pupil} was taught by its teacher as that was after {step:,} steps, and trained on it is another "
                    f"teacher; give --max_steps {step} again, or another --output_dir"
                )


def refuse_text(members: Iterable[Member]) -> None:
    """Raise DataError or ConfigError where a folder of texts lacks a split of a run that is to be made, or its labels.

    All is read, which takes seconds where a run takes hours; what is on the hub is not looked for.
    """
    sources = {one.task.name: one.numbers for one in members}
    for numbers in sources.values():
        data = numbers.source.data
        if not data or data.startswith(PREFIX):
            continue
        task = task_of(numbers.source, numbers.data)
        for split in (TRAIN, *task.validations):
            read(task, split, data)
