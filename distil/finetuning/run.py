"""One fine-tuning from its options to the exported model."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

import distil
from distil.engine.device import DTYPES, precisions_of
from distil.engine.ranks import Ranks
from distil.errors import RunError
from distil.export import export_student
from distil.finetuning.card import write_card
from distil.finetuning.job import FineTuningJob, settle
from distil.finetuning.options import FineTuning
from distil.finetuning.plan import describe
from distil.finetuning.results import TaskResults
from distil.finetuning.workload import FineTuningWork, Teacher
from distil.guard import Guard, together
from distil.made import versions
from distil.models.constants import in_precision
from distil.models.family import Family
from distil.models.shape import shape_of
from distil.models.student import make_task_student
from distil.models.task_distiller import TaskDistiller, check_comparable
from distil.models.task_heads import task_family
from distil.models.task_loading import load_fitted_model, load_task_model
from distil.options import Placing
from distil.placement import place
from distil.rundir import MODEL, claim
from distil.stopping import StopRequest
from distil.training import Trained, in_folder, say, train


def finetune(placing: Placing, numbers: FineTuning, stop: StopRequest) -> None:
    """Run ``numbers`` as they are placed, on all ranks of the launcher, until done or ``stop`` is asked.

    Raises DataError, ConfigError and RunError; Stopped, with everything saved, where it was asked to end early.
    """
    with together(numbers.run, stop) as (ranks, guard):
        run(placing, numbers, ranks, guard)


def run(placing: Placing, numbers: FineTuning, ranks: Ranks, guard: Guard) -> TaskResults | None:
    """One run, or what an earlier one left of it; None where only its plan was asked for."""
    return perform(placing, settled(placing, numbers, ranks), ranks, guard)


def settled(placing: Placing, numbers: FineTuning, ranks: Ranks) -> FineTuningJob:
    """A run's job; what is decided on the way is told. Raises DataError and ConfigError."""
    precisions = precisions_of(ranks.device)
    placement = ranks.all_do(
        lambda: place(
            placing.deepspeed, numbers, ranks.world, ranks.device.type, precisions, placing.precision, placing.compile
        )
    )
    say(ranks, f"distil {distil.__version__}: {numbers.called}")
    for note in placement.notes:
        say(ranks, f"  {note}")
    return settle(numbers, placement, placing.max_steps, ranks)


def perform(placing: Placing, job: FineTuningJob, ranks: Ranks, guard: Guard) -> TaskResults | None:
    """A job's run, or what an earlier one left of it; None where only its plan was asked for."""
    torch.manual_seed(job.numbers.optimizer.seed)
    model, family, teacher, note = ranks.all_do(lambda: load_models(job))
    plan = describe(job, (model, family), teacher, note)
    say(ranks, plan)
    for line in job.warnings:
        say(ranks, f"warning: {line}")
    if placing.dry_run:
        return None
    folder, done = in_folder(
        placing.output_dir, job, ranks, guard, TaskResults.read,
        lambda folder: _train(job, model, family, teacher, folder, plan, ranks, guard),
    )  # fmt: skip
    say(ranks, f"\n{done.table()}\n")
    say(ranks, f"model:       {folder / MODEL}")
    say(ranks, f"tensorboard: tensorboard --logdir {folder.parent}")
    return done


def load_models(job: FineTuningJob) -> tuple[transformers.PreTrainedModel, Family, Teacher | None, str]:
    """The model in fp32 as training begins with it, its family, its teacher, and how the former starts.

    Raises DataError for what cannot be loaded, ConfigError for what the loss cannot compare.
    """
    start, task, seed = job.numbers.start, job.task, job.numbers.optimizer.seed
    teacher = load_fitted_model(start.teacher, task, torch.float32) if start.teacher else None
    if start.model:
        model, family, fresh = load_task_model(start.model, task, torch.float32, seed)
        modules = dict.fromkeys(name.rpartition(".")[0] for name in fresh)
        note = f"its head is new: {', '.join(modules)}" if fresh else "with its head"
    else:
        shape = shape_of(teacher[0].config, start.shape())
        student = make_task_student(teacher[0], task, shape, start.initial_weights, seed)
        model, family = student.model.train(), task_family(shape.family, task.kind)
        note = f"layers {' '.join(map(str, shape.layers))} of the teacher"
        if len(student.random) == len(family.modules):
            note = "random weights"
        elif student.random:
            note += f"; random: {', '.join(name.removeprefix('head.') for name in student.random)}"
    check_comparable(model, family, *(teacher or (None, None)), job.numbers.loss)
    return model, family, teacher, note


def _train(
    job: FineTuningJob, model: transformers.PreTrainedModel, family: Family, teacher: Teacher | None, folder: Path,
    plan: str, ranks: Ranks, guard: Guard,
) -> TaskResults:  # fmt: skip
    numbers, placement = job.numbers, job.placement
    module = ranks.all_do(
        lambda: TaskDistiller(
            model,
            family,
            job.task.kind,
            *((teacher if numbers.loss.needs_teacher else None) or (None, None)),
            numbers.loss,
        )  # fmt: skip
    )
    ranks.first_does(lambda: claim(folder, job))
    if teacher is not None:
        in_precision(teacher[0], DTYPES[placement.precision]).to(ranks.device)
    work = FineTuningWork(job, teacher)
    trained = train(work, job, module, model, placement, folder, ranks, guard, _texts(job, plan, ranks.device))
    at = trained.position

    def finish() -> TaskResults:
        results = _results(job, work, trained, model, teacher)
        try:
            export_student(folder / MODEL, family, model.config, trained.parameters, job.tokenizer)
            write_card(folder / MODEL, job, family, results)
            results.write(folder)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"trained and saved to step {at.step}, but the model cannot be exported to {folder / MODEL}: {error}; "
                "make room there, and the same command exports it from the checkpoint"
            ) from error
        return results

    return ranks.first_does(finish)


def _results(
    job: FineTuningJob, work: FineTuningWork, trained: Trained, model: transformers.PreTrainedModel,
    teacher: Teacher | None,
) -> TaskResults:  # fmt: skip
    return TaskResults(
        task=job.task.name, kind=job.task.kind, step=trained.position.step, scores=work.scores,
        teacher_scores=work.teacher_scores, agreement=work.agreed,
        judged={split.name: len(split.examples) for split in job.splits}, train_examples=job.train_examples,
        parameters=_parameters(model), teacher_parameters=None if teacher is None else _parameters(teacher[0]),
        seconds=round(trained.seconds, 1), from_step=trained.first_step, paper=dict(job.task.paper),
        subset=bool(job.numbers.data.train_examples or job.numbers.data.validation_examples),
    )  # fmt: skip


def _parameters(model: transformers.PreTrainedModel) -> int:
    """Of a whole model, as its config says: under ZeRO-3 a rank holds a part of each."""
    return sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters())


def _texts(job: FineTuningJob, plan: str, device: torch.device) -> dict[str, Any]:
    placement = {"path": job.placement.path, "ranks": job.placement.ranks, "config": job.placement.config}
    return {
        "recipe": {"name": job.name, "models": asdict(job.numbers.start), **job.identity()},
        "ds_config": placement,
        "versions": versions(device),
        "plan": plan,
    }
