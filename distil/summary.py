"""The plan of a job in words: what a person reads before the start, and finds again in TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import transformers

from distil.job import Job
from distil.models.distiller import WEIGHTED_TERMS
from distil.models.families import family_of
from distil.models.family import Family
from distil.models.shape import student_config
from distil.tables import RANDOM

COLUMN = 16
STORES_SHOWN = 8
VARIED = ("recipe", "student")  # rows of the plan that a variant of a recipe may change


def describe(job: Job) -> str:
    """The plan a person reads before the start: models, parameters, batch arithmetic, steps, tokens."""
    return in_columns(_rows(job))


def differing(job: Job, other: Job) -> str:
    """Loss and student of a job's plan, where they are not those of another's; empty where both are."""
    mine, theirs = _rows(job), _rows(other)
    return in_columns({name: mine[name] for name in VARIED if mine[name] != theirs[name]})


def in_columns(rows: dict[str, str]) -> str:
    """Rows of a plan, their names in a column of their own."""
    return "\n".join(f"  {name:<{COLUMN}}{text}" for name, text in rows.items())


def _rows(job: Job) -> dict[str, str]:
    recipe, data, place = job.recipe, job.recipe.data, job.placement
    student = student_config(job.teacher_config, job.shape)
    start = (
        "random weights" if recipe.model.initial_weights == RANDOM else f"layers {' '.join(map(str, job.shape.layers))}"
    )
    first = job.counts(job.global_batch(0)).attended
    an_epoch = job.mixture.micro_batches
    epochs = job.total_steps * job.micro_batches / an_epoch
    stop = f"; this run stops at {job.stop_step:,}" if job.stop_step < job.total_steps else ""
    return {
        "recipe": f"{recipe.name}: {_loss_formula(job)}",
        "teacher" if recipe.loss.needs_teacher else "initial weights": f"{job.teacher}, {size_of(job.teacher_config)}",
        "student": f"{job.shape.family.name} of {start}, {size_of(student)}",
        **({"vocabulary": _vocabulary(job)} if job.vocabulary is not None else {}),
        "text": _lines(list(_text_of(job, epochs))),
        "held out": _lines([f"{s.tokens:,} tokens in {s.prefix}" for s in job.heldout]) or "nothing",
        "placement": f"{place.path}: ZeRO-{place.zero_stage}, {place.precision}, {place.ranks} rank(s)",
        "micro-batch": f"{data.micro_batch_size} x {data.max_length} = {data.budget_tokens:,} tokens at most, packed",
        "global batch": f"{data.micro_batches} micro-batches = {place.accumulation} accumulated x {place.ranks} rank(s)"
        f", {first:,} tokens in the first",
        "schedule": f"{job.total_steps:,} steps = {epochs:.2f} epochs of {an_epoch:,} micro-batches, "
        f"about {epochs * job.mixture.tokens_an_epoch:,.0f} tokens{stop}",
    }


def _vocabulary(job: Job) -> str:
    text = f"{len(job.vocabulary):,} ids of {job.recipe.model.tokenizer}, of both models"
    lacking = f"; {job.unknown:,} that the teacher lacks are its unknown token to it, and start as that"
    return text + (lacking if job.unknown else "")


def _lines(texts: list[str]) -> str:
    """One below the other; of many stores the first ones."""
    left = len(texts) - STORES_SHOWN
    shown = texts if left <= 0 else [*texts[:STORES_SHOWN], f"and {left} more"]
    return f"\n  {'':<{COLUMN}}".join(shown)


def _text_of(job: Job, epochs: float) -> Iterator[str]:
    mixture = job.mixture
    for store, plan, share in zip(mixture.stores, mixture.plans, mixture.shares, strict=True):
        text = f"{len(store):,} sequences, {store.tokens:,} tokens in {store.prefix}, budget {plan.filling:.1%} filled"
        if len(mixture.stores) > 1:
            passes = epochs * float(share * mixture.micro_batches / plan.micro_batches)
            text += f", {float(share):.1%} of the micro-batches, {passes:.2f} passes"
        yield text


def _loss_formula(job: Job) -> str:
    loss = job.recipe.loss
    weights = {name: getattr(loss, f"alpha_{name}") for name in WEIGHTED_TERMS}
    terms = " + ".join(f"{alpha:g} {name.upper()}" for name, alpha in weights.items() if alpha)
    until = f"; no teacher after step {job.kd_steps:,}" if loss.needs_teacher and loss.kd_until < 1 else ""
    return f"{terms}, T = {loss.temperature:g}{until}"


def size_of(config: transformers.PreTrainedConfig, family: Family | None = None) -> str:
    """Layers, widths and parameters of a config's model, in words; ``family`` where it is no language model."""
    family = family or family_of(config)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in family.model_class(config).parameters())
    numbers = {name: family.number(config, name) for name in ("layers", "hidden", "heads", "feed_forward")}
    shape = f"{numbers['layers']} layers of width {numbers['hidden']} ({numbers['heads']} heads, "
    return f"{shape}feed-forward {numbers['feed_forward']}), {parameters / 1e6:.1f} M parameters"
