"""One pretraining run from its options to the exported student."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

import distil
from distil.config import Recipe
from distil.data import samples
from distil.distillation import Distillation
from distil.engine.device import DTYPES, precisions_of
from distil.engine.ranks import Ranks
from distil.errors import ConfigError, RunError
from distil.export import export_student, write_card
from distil.guard import Guard, together
from distil.job import Job, settle
from distil.kernels.paths import path_for
from distil.made import versions
from distil.models.constants import in_precision
from distil.models.distiller import Distiller
from distil.models.student import Student
from distil.options import DEFAULT_RECIPE, Options
from distil.placement import place
from distil.prepare import FROM_RECIPE, fitted, prepare_stores, sample_encoder, with_stores_found
from distil.results import Results, measure
from distil.rundir import RESULTS, STUDENT, claim
from distil.stopping import StopRequest
from distil.summary import COLUMN, describe
from distil.training import in_folder, say, train

REAL_RUN = (
    "to run the real one: deepspeed launch/pretrain.py --deepspeed ds_config/zero1.json "
    "--recipe distilbert-base-uncased --teacher NAME_OR_DIR --store PREFIX"
)


def pretrain(options: Options, recipe: Recipe, stop: StopRequest) -> None:
    """Run ``recipe`` as the options place it, on all ranks of the launcher, until it is done or ``stop`` is asked.

    Raises DataError, ConfigError and RunError; Stopped, with everything saved, where it was asked to end early.
    """
    with together(recipe.run, stop) as (ranks, guard):
        run(options, recipe, ranks, guard)


def introduce(ranks: Ranks, recipe: Recipe) -> None:
    """Say which program runs what."""
    say(ranks, f"distil {distil.__version__}: recipe {recipe.name}")
    if recipe.name == DEFAULT_RECIPE:
        say(ranks, f"  a real but small distillation, the embedded default; {REAL_RUN}")


def settled(options: Options, recipe: Recipe, ranks: Ranks, guard: Guard, told: bool = True) -> Job:
    """What the options and the recipe come to on these ranks; a teacher is fitted if need be.

    ``told`` is whether it is said line by line.
    """
    recipe = ranks.first_does(lambda: with_stores_found(recipe))  # one look, lest two hosts list a folder differently
    precisions = precisions_of(ranks.device)
    placement = ranks.all_do(
        lambda: place(
            options.deepspeed, recipe, ranks.world, ranks.device.type, precisions, options.precision, options.compile
        )
    )
    if told:
        introduce(ranks, recipe)
        for note in placement.notes:
            say(ranks, f"  {note}")
    teacher = _resolve_teacher(recipe, options, ranks, guard)
    guard.pass_on(ranks)
    ranks.first_does(lambda: prepare_stores(recipe, teacher))
    job = ranks.all_do(lambda: settle(recipe, placement, teacher, options.max_steps))
    if told:
        say(ranks, describe(job))
    return job


def run(
    options: Options, recipe: Recipe, ranks: Ranks, guard: Guard, brief: Callable[[Job], str] | None = None
) -> Results | None:  # fmt: skip
    """One run, or what an earlier one left of it; returns what it came to, None where only its plan was asked for.

    ``brief`` has what is said of the plan where a person has read most of it already.
    """
    job = settled(options, recipe, ranks, guard, told=brief is None)
    if brief is not None and (text := brief(job)):
        say(ranks, text)
    if options.dry_run:
        return None
    folder, done = in_folder(
        options.output_dir, job, ranks, guard, Results.read,
        lambda folder: _train(job, folder, ranks, guard, told=brief is None),
    )  # fmt: skip
    say(ranks, f"\n{done.table()}\n")
    say(ranks, f"student:     {folder / STUDENT}")
    say(ranks, f"tensorboard: tensorboard --logdir {folder.parent}")
    return done


def _resolve_teacher(recipe: Recipe, options: Options, ranks: Ranks, guard: Guard) -> str:
    """Folder or hub name of the teacher; a built-in one is made first, by its own recipe where it has one."""
    name = recipe.model.teacher
    if name.startswith(samples.PREFIX):
        return str(ranks.first_does(lambda: sample_encoder(name.removeprefix(samples.PREFIX))))
    if not name.startswith(FROM_RECIPE):
        return name
    of_teacher = ranks.all_do(lambda: _recipe_of_teacher(name.removeprefix(FROM_RECIPE)))
    folder = fitted(of_teacher)
    if ranks.first_does(lambda: (folder / RESULTS).exists()):
        return str(folder / STUDENT)
    if options.dry_run:  # the unfitted model has the same shape
        return _resolve_teacher(of_teacher, options, ranks, guard)
    say(ranks, f"  its teacher is fitted first, once, by the recipe {of_teacher.name}; kept in {folder}\n")
    of_run = Options(
        options.deepspeed, str(folder), precision=options.precision, compile=options.compile, recipe=of_teacher.name
    )
    run(of_run, of_teacher, ranks, guard)
    say(ranks, f"\nthe teacher is ready; now the recipe {recipe.name}")
    return str(folder / STUDENT)


def _recipe_of_teacher(name: str) -> Recipe:
    recipe = Recipe.load(name)
    if recipe.model.teacher.startswith(FROM_RECIPE):
        raise ConfigError(f"recipe {name}: the teacher of a teacher's recipe must be a model, not a recipe")
    return recipe


def _train(job: Job, folder: Path, ranks: Ranks, guard: Guard, told: bool) -> Results:
    recipe, placement = job.recipe, job.placement
    torch.manual_seed(recipe.optimizer.seed)
    if told:
        say_loss_path(ranks)
    student, module = _build(job, ranks, lambda: claim(folder, job))
    trained = train(
        Distillation(job), job, module, student, placement, folder, ranks, guard, _texts(job, ranks.device)
    )  # fmt: skip
    at = trained.position

    def finish() -> Results:
        dtype = DTYPES[placement.precision]
        try:
            export_student(folder / STUDENT, job.shape.family, student.config, trained.parameters, job.tokenizer)
            results = measure(job, folder / STUDENT, at.step, dtype, ranks.device)
            write_card(folder / STUDENT, recipe, job.shape.family, at.step, at.tokens, results.table())
            results.write(folder)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"trained and saved to step {at.step}, but the student cannot be exported to {folder / STUDENT}: "
                f"{error}; make room there, and the same command exports it from the checkpoint"
            ) from error
        return results

    return ranks.first_does(finish)


def say_loss_path(ranks: Ranks) -> None:
    """Say what computes the loss on these ranks; where that has to be built, it is built now."""
    ranks.first_does(lambda: path_for(ranks.device).name)  # builds its kernels once; the others find them built
    path = ranks.all_do(lambda: path_for(ranks.device))
    say(ranks, f"  {'loss':<{COLUMN}}{path.name}: {path.why}")


def _build(
    job: Job, ranks: Ranks, claim_folder: Callable[[], None]
) -> tuple[transformers.PreTrainedModel, Distiller]:  # fmt: skip
    """The student, and it with its loss; the folder is claimed when all that can be refused has been looked at."""
    recipe, placement = job.recipe, job.placement
    # In fp32, so that what the student starts from is no more rounded than the teacher's own file.
    teacher, teacher_family = ranks.all_do(lambda: job.load_teacher(torch.float32))
    student = ranks.all_do(lambda: job.make_student(teacher))
    for note in _notes(job, student):
        say(ranks, f"  {'initial weights':<16}{note}")
    ranks.first_does(claim_folder)
    teacher = in_precision(teacher, DTYPES[placement.precision]).to(ranks.device)
    compared = (teacher, teacher_family) if recipe.loss.needs_teacher else (None, None)
    return student.model, Distiller(student.model, job.shape.family, *compared, recipe.loss)


def _notes(job: Job, student: Student) -> Iterator[str]:
    """What of the student is not its teacher's as it is."""
    for parts, fate in ((student.cut, "the teacher's, cut to size"), (student.random, "random")):
        if len(parts) == len(job.shape.family.modules):
            yield f"{fate}, all of them"
        elif parts:
            yield f"{fate}: {', '.join(name.removeprefix('layer.') for name in parts)}"


def _texts(job: Job, device: torch.device) -> dict[str, Any]:
    placement = {"path": job.placement.path, "ranks": job.placement.ranks, "config": job.placement.config}
    return {
        "recipe": {"name": job.recipe.name, **job.recipe.mathematics(), "run": asdict(job.recipe.run)},
        "ds_config": placement,
        "versions": versions(device),
        "plan": describe(job),
    }
