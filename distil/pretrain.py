"""One pretraining run from its options to the exported student."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import distil
from distil import engine as ds
from distil.checkpoint import Checkpoints, Position
from distil.config import Recipe
from distil.data import samples
from distil.engine import DTYPES, Engine, Ranks
from distil.errors import ConfigError, UserError
from distil.export import export_student, write_card
from distil.folder import prepared
from distil.job import Job, describe, settle
from distil.kernels.paths import path_for
from distil.models.distiller import Distiller
from distil.models.families import FAMILIES
from distil.models.loading import load_masked_lm
from distil.models.student import decay_groups, make_student
from distil.monitor import Monitor, git_revision
from distil.options import DEFAULT_RECIPE, Options
from distil.placement import place
from distil.prepare import FROM_RECIPE, prepare_stores, recipe_digest, sample_encoder
from distil.results import RESULTS, Results, measure
from distil.rundir import check, claim, finished, free_folder
from distil.trainer import Trainer

RUNS = Path("runs")
STUDENT = "student"  # folder of the export within a run
REAL_RUN = (
    "to run the real one: deepspeed launch/pretrain.py --deepspeed ds_config/zero1.json "
    "--recipe distilbert-base-uncased --teacher NAME_OR_DIR --store PREFIX"
)


def pretrain(options: Options, recipe: Recipe) -> None:
    """Run ``recipe`` as the options place it, on all ranks of the launcher. Raises DataError and ConfigError."""
    ranks = ds.start_ranks()
    try:
        _run(options, recipe, ranks)
    except UserError as mistake:
        if mistake.shared:
            ds.stop_ranks()
        raise  # after anything else other ranks may be waiting in a collective: to leave politely could hang
    ds.stop_ranks()


def _run(options: Options, recipe: Recipe, ranks: Ranks) -> None:
    """One run, or what an earlier one left of it."""
    precisions = ds.precisions_of(ranks.device)
    placement = ranks.all_do(
        lambda: place(options.deepspeed, recipe, ranks.world, ranks.device.type, precisions, options.precision)
    )
    _say(ranks, f"distil {distil.__version__}: recipe {recipe.name}")
    if recipe.name == DEFAULT_RECIPE:
        _say(ranks, f"  a real but small distillation, the embedded default; {REAL_RUN}")
    for note in placement.notes:
        _say(ranks, f"  {note}")
    teacher = _resolve_teacher(recipe, options, ranks)
    ranks.first_does(lambda: prepare_stores(recipe, teacher))
    job = ranks.all_do(lambda: settle(recipe, placement, teacher, options.max_steps))
    _say(ranks, describe(job))
    if options.dry_run:
        return
    folder = Path(options.output_dir) if options.output_dir else ranks.first_does(lambda: free_folder(RUNS, job))
    ranks.first_does(lambda: check(folder, job))
    if done := ranks.first_does(lambda: finished(folder, job)):
        _say(ranks, f"already done in {folder}, at step {done.step:,}; --max_steps or another --output_dir trains on")
    else:
        done = _train(job, folder, ranks)
    _say(ranks, f"\n{done.table()}\n")
    _say(ranks, f"student:     {folder / STUDENT}")
    _say(ranks, f"tensorboard: tensorboard --logdir {folder.parent}")


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
    folder = prepared() / f"{of_teacher.name}-{recipe_digest(of_teacher)}"
    if ranks.first_does(lambda: (folder / RESULTS).exists()):
        return str(folder / STUDENT)
    if options.dry_run:  # the unfitted model has the same shape
        return _resolve_teacher(of_teacher, options, ranks)
    _say(ranks, f"  its teacher is fitted first, once, by the recipe {of_teacher.name}; kept in {folder}\n")
    _run(Options(of_teacher.name, options.deepspeed, str(folder), None, options.precision), of_teacher, ranks)
    _say(ranks, f"\nthe teacher is ready; now the recipe {recipe.name}")
    return str(folder / STUDENT)


def _train(job: Job, folder: Path, ranks: Ranks) -> Results:
    recipe, placement = job.recipe, job.placement
    dtype = DTYPES[placement.precision]
    torch.manual_seed(recipe.optimizer.seed)
    ranks.first_does(lambda: path_for(ranks.device).name)  # builds its kernels once; the others find them built
    path = ranks.all_do(lambda: path_for(ranks.device))
    _say(ranks, f"  {'loss':<16}{path.name}: {path.why}")
    teacher, teacher_family = ranks.all_do(lambda: load_masked_lm(job.teacher, dtype))
    shape = (recipe.model.student, recipe.model.student_layers, recipe.model.dropout)
    student = ranks.all_do(lambda: make_student(teacher, *shape))
    ranks.first_does(lambda: claim(folder, job))
    teacher = teacher.to(ranks.device)
    family = FAMILIES[recipe.model.student]
    compared = (teacher, teacher_family) if recipe.loss.needs_teacher else (None, None)
    module = Distiller(student, family, *compared, recipe.loss)
    engine = Engine(module, decay_groups(module, recipe.optimizer.weight_decay), placement, ranks)
    checkpoints = Checkpoints(folder / "checkpoints", recipe.run.keep_checkpoints, ranks, placement)
    at = Position(0, 0, 0)
    if (newest := checkpoints.newest()) is not None:
        at = ranks.all_do(lambda: checkpoints.load(engine, newest))
        _say(ranks, f"resuming from {folder / 'checkpoints' / newest}")
    _say(ranks, "")
    monitor = Monitor(folder / "tensorboard", recipe.name, at.step, at.tokens, job.stop_step, ranks.first)
    if ranks.first:
        monitor.texts(_texts(job))
    try:
        at = Trainer(job, engine, ranks, checkpoints, monitor, at).train()
    finally:
        monitor.close()
    parameters = {name: value for name, value in engine.fp32_parameters(student) if ranks.first}
    engine.close()

    def finish() -> Results:
        export_student(folder / STUDENT, family, student.config, parameters, job.tokenizer)
        results = measure(job, folder / STUDENT, at.step, dtype, ranks.device)
        write_card(folder / STUDENT, recipe, at.step, at.tokens, results.table())
        results.write(folder)
        return results

    return ranks.first_does(finish)


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
