"""One pretraining run from its options to the exported student."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import distil
from distil import engine as ds
from distil.checkpoint import Checkpoints, Position
from distil.config import Recipe
from distil.data import samples
from distil.data.tokenizer import load_tokenizer
from distil.engine import Engine, Ranks
from distil.errors import ConfigError
from distil.export import export_student, model_card
from distil.job import Job, describe, settle
from distil.models.distiller import Distiller
from distil.models.families import FAMILIES
from distil.models.loading import load_masked_lm
from distil.models.student import decay_groups, make_student
from distil.monitor import Monitor, git_revision
from distil.options import DEFAULT_RECIPE, Options
from distil.placement import place
from distil.prepare import FROM_RECIPE, recipe_digest, sample_encoder, sample_store
from distil.results import Results, measure
from distil.rundir import check, claim, finished, free_folder
from distil.trainer import Trainer

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
REAL_RUN = (
    "to run the real one: deepspeed launch/pretrain.py --deepspeed ds_config/zero1.json "
    "--recipe distilbert-base-uncased --teacher NAME_OR_DIR --store PREFIX"
)


def pretrain(options: Options, recipe: Recipe) -> None:
    """Run ``recipe`` as the options place it, on all ranks of the launcher. Raises DataError and ConfigError."""
    ranks = ds.start_ranks()
    try:
        _run(options, recipe, ranks)
    finally:
        ds.stop_ranks()


def _run(options: Options, recipe: Recipe, ranks: Ranks) -> Path:
    """One run, or what an earlier one left of it; returns the folder of the exported student."""
    placement = place(
        options.deepspeed, recipe, ranks.world, ranks.device.type, ds.precisions_of(ranks.device), options.precision
    )
    _say(ranks, f"distil {distil.__version__}: recipe {recipe.name}")
    if recipe.name == DEFAULT_RECIPE:
        _say(ranks, f"  a real but small distillation, the embedded default; {REAL_RUN}")
    for note in placement.notes:
        _say(ranks, f"  {note}")
    teacher = _resolve_teacher(recipe, options, ranks)
    _prepare_store(recipe, teacher, ranks)
    job = settle(recipe, placement, teacher, options.max_steps)
    _say(ranks, describe(job))
    folder = Path(options.output_dir) if options.output_dir else None
    if options.dry_run:
        return Path()
    if folder is None:
        folder = ranks.first_does(lambda: free_folder(Path("runs"), job))
    ranks.first_does(lambda: check(folder, job))
    if done := ranks.first_does(lambda: finished(folder, job)):
        _say(ranks, f"already done in {folder}, at step {done.step:,}; --max_steps or another --output_dir trains on")
    else:
        done = _train(job, folder, ranks)
    _say(ranks, f"\n{done.table()}\n")
    _say(ranks, f"student:     {folder / 'student'}")
    _say(ranks, f"tensorboard: tensorboard --logdir {folder.parent}")
    return folder / "student"


def _resolve_teacher(recipe: Recipe, options: Options, ranks: Ranks) -> str:
    """Folder or hub name of the teacher; a built-in one is made first, by its own recipe where it has one."""
    name = recipe.model.teacher
    if name.startswith(samples.PREFIX):
        return str(ranks.first_does(lambda: sample_encoder(name.removeprefix(samples.PREFIX))))
    if not name.startswith(FROM_RECIPE):
        return name
    of_teacher = Recipe.load(name.removeprefix(FROM_RECIPE))
    if of_teacher.model.teacher.startswith(FROM_RECIPE):
        raise ConfigError(f"recipe {of_teacher.name}: the teacher of a teacher's recipe must be a model, not a recipe")
    folder = samples.prepared() / f"{of_teacher.name}-{recipe_digest(of_teacher)}"
    fitted = ranks.first_does(lambda: (folder / "student" / "config.json").exists())
    if fitted:
        return str(folder / "student")
    if options.dry_run:  # the unfitted model has the same shape
        return _resolve_teacher(of_teacher, options, ranks)
    _say(ranks, f"  its teacher is fitted first, once, by the recipe {of_teacher.name}; kept in {folder}\n")
    fit = Options(of_teacher.name, options.deepspeed, str(folder), None, options.precision)
    student = _run(fit, of_teacher, ranks)
    _say(ranks, f"\nthe teacher is ready; now the recipe {recipe.name}")
    return str(student)


def _prepare_store(recipe: Recipe, teacher: str, ranks: Ranks) -> None:
    name = recipe.data.store
    if name.startswith(samples.PREFIX):
        ranks.first_does(
            lambda: sample_store(name.removeprefix(samples.PREFIX), load_tokenizer(teacher), recipe.data.max_length)
        )


def _train(job: Job, folder: Path, ranks: Ranks) -> Results:
    recipe, placement = job.recipe, job.placement
    dtype = DTYPES[placement.precision]
    torch.manual_seed(recipe.optimizer.seed)
    teacher, teacher_family = load_masked_lm(job.teacher, dtype)
    student = make_student(teacher, recipe.model.student, recipe.model.student_layers, recipe.model.dropout)
    ranks.first_does(lambda: claim(folder, job))
    teacher = teacher.to(ranks.device)
    family = FAMILIES[recipe.model.student]
    compared = (teacher, teacher_family) if recipe.loss.needs_teacher else (None, None)
    module = Distiller(student, family, *compared, recipe.loss)
    engine = Engine(module, decay_groups(module, recipe.optimizer.weight_decay), placement, ranks)
    checkpoints = Checkpoints(folder / "checkpoints", recipe.run.keep_checkpoints, ranks, placement)
    at = Position(0, 0, 0)
    if (newest := checkpoints.newest()) is not None:
        at = checkpoints.load(engine, newest)
        _say(ranks, f"resuming from {folder / 'checkpoints' / newest}")
    _say(ranks, "")
    monitor = Monitor(folder / "tensorboard", recipe.name, at.step, at.tokens, job.stop_step, ranks.first)
    monitor.texts(_texts(job))
    try:
        at = Trainer(job, engine, ranks, checkpoints, monitor, at).train()
    finally:
        monitor.close()
    parameters = dict(engine.fp32_parameters(student))
    engine.close()
    return ranks.first_does(lambda: _finish(job, folder, at, student.config, parameters, dtype, ranks))


def _finish(
    job: Job,
    folder: Path,
    at: Position,
    config: Any,
    parameters: dict[str, torch.Tensor],
    dtype: torch.dtype,
    ranks: Ranks,
) -> Results:
    """Export the student, measure the export beside its teacher, and put the figures into both."""
    recipe, student = job.recipe, folder / "student"

    def export(figures: str) -> None:
        mathematics = json.dumps(recipe.mathematics(), indent=2)
        card = model_card(
            recipe.name,
            recipe.model.student,
            recipe.model.teacher,
            recipe.data.store,
            at.step,
            at.tokens,
            figures,
            mathematics,
        )
        export_student(student, recipe.model.student, config, parameters, job.tokenizer, card)

    export("to be measured")
    results = measure(job, student, at.step, dtype, ranks.device)
    export(results.table())
    results.write(folder)
    return results


def _texts(job: Job) -> dict[str, Any]:
    placement = {"path": job.placement.path, "ranks": job.placement.ranks, "config": job.placement.config}
    return {
        "recipe": {"name": job.recipe.name, **job.recipe.mathematics(), "run": asdict(job.recipe.run)},
        "ds_config": placement,
        "versions": {"git": git_revision(), "distil": distil.__version__, "torch": torch.__version__},
        "plan": describe(job),
    }


def _say(ranks: Ranks, line: str) -> None:
    if ranks.first:
        print(line, flush=True)
