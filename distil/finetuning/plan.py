"""The plan of a fine-tuning in words."""

from __future__ import annotations

import transformers

from distil.finetuning.job import FineTuningJob
from distil.models.family import Family
from distil.summary import in_columns, size_of

Model = tuple[transformers.PreTrainedModel, Family]


def describe(job: FineTuningJob, model: Model, teacher: Model | None, note: str) -> str:
    """What a person reads before the start: task, models, text, arithmetic; ``note`` says how the model starts."""
    data, place, start, task = job.numbers.data, job.placement, job.numbers.start, job.task
    what = ", ".join(task.labels) if task.labels else task.kind
    epochs = job.total_steps * data.batch_size / len(job.train)
    stop = f"; this run stops at {job.stop_step:,}" if job.stop_step < job.total_steps else ""
    rows = {
        "task": f"{task.name}: {' + '.join(task.columns)} -> {what}",
        "loss": job.numbers.loss.formula,
    }
    if teacher is not None:
        rows["teacher"] = f"{start.teacher}, {size_of(teacher[0].config, teacher[1])}"
    rows["model"] = f"{start.model or model[1].name}, {size_of(model[0].config, model[1])}; {note}"
    lengths = job.train.lengths
    rows["train"] = (
        f"{job.train_examples:,} examples, {len(job.train):,} sequences, {lengths.sum():,} tokens, the longest "
        f"{lengths.max()}"
    )
    rows["judged on"] = ", ".join(f"{len(split.examples):,} examples of {split.name}" for split in job.splits)
    rows["placement"] = f"{place.path}: ZeRO-{place.zero_stage}, {place.precision}, {place.ranks} rank(s)"
    rows["global batch"] = (
        f"{data.batch_size} sequences = {data.micro_batches} micro-batches of {data.micro_batch_size}, packed, "
        f"{place.accumulation} accumulated x {place.ranks} rank(s)"
    )
    rows["schedule"] = f"{job.total_steps:,} steps = {epochs:.2f} epochs{stop}"
    return in_columns(rows)
