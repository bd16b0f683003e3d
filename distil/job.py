"""A job: a recipe and a placement made concrete against the models and the text they name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from distil.config import Recipe
from distil.data.batch import Batcher
from distil.data.masking import Masker
from distil.data.mixture import Mixture
from distil.data.store import Store
from distil.data.tokenizer import fingerprint, load_tokenizer, vocab_size
from distil.errors import ConfigError, DataError
from distil.kernels import WEIGHTED_TERMS
from distil.models.distiller import Counts
from distil.models.families import family_of
from distil.models.loading import load_config, weights_fingerprint
from distil.models.student import student_config
from distil.placement import Placement
from distil.prepare import open_stores
from distil.shares import ceil_share

# Embeddings are often padded to a multiple of 64 or 128 for the hardware; a wider gap is another tokenizer's.
PADDED_VOCABULARY = 128


@dataclass(frozen=True)
class Job:
    """Everything that is known before a model is loaded; the same on every rank.

    ``teacher`` is a folder or hub name, ``total_steps`` the length of the schedule, ``stop_step`` where this run ends.
    """

    recipe: Recipe
    placement: Placement
    teacher: str
    teacher_config: transformers.PreTrainedConfig
    tokenizer: transformers.PreTrainedTokenizerBase
    mixture: Mixture
    heldout: list[Store]
    masker: Masker
    teacher_fingerprint: str
    total_steps: int
    stop_step: int

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one step, over all ranks."""
        return self.recipe.data.micro_batches

    def batcher(self) -> Batcher:
        """Assembles any micro-batch of the plan."""
        return Batcher(self.mixture, self.masker, self.recipe.optimizer.seed)

    def global_batch(self, first: int) -> range:
        """Stream numbers of the global batch that begins with micro-batch ``first``."""
        return range(first, first + self.micro_batches)

    def counts(self, numbers: range) -> Counts:
        """Rows in these micro-batches, known from the plan before any is assembled."""
        tokens = [self.mixture.tokens(number) for number in numbers]
        sequences = sum(self.mixture.sequences(number) for number in numbers)
        masked = sum(ceil_share(n, self.recipe.masking.mlm_fraction) for n in tokens)
        return Counts(sum(tokens), masked, sum(tokens) - sequences)

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run: to go on under another identity would be another experiment."""
        return {
            "recipe": self.recipe.name,
            "mathematics": self.recipe.mathematics(),
            "store": self.mixture.fingerprint,
            "tokenizer": fingerprint(self.tokenizer),
            "teacher": self.teacher_fingerprint,
        }


def settle(recipe: Recipe, placement: Placement, teacher: str, max_steps: int | None) -> Job:
    """Check that recipe, teacher, tokenizer and stores go together and work out the plan.

    ``teacher`` is the folder or hub name that the recipe's teacher resolved to. Raises DataError and ConfigError.
    """
    config = load_config(teacher)
    tokenizer = load_tokenizer(teacher)
    _check_family(recipe, config)
    student_config(config, recipe.model.student, recipe.model.student_layers, recipe.model.dropout)
    if not 0 <= config.vocab_size - vocab_size(tokenizer) < PADDED_VOCABULARY:
        raise DataError(
            f"teacher {teacher} has a vocabulary of {config.vocab_size}, its tokenizer one of {vocab_size(tokenizer)}: "
            "they are not of one model; use the teacher's own tokenizer"
        )
    positions = getattr(config, family_of(config).config["positions"])
    if recipe.data.max_length > positions:
        raise ConfigError(f"max_length is {recipe.data.max_length}, the teacher has {positions} positions")
    stores, heldout = open_stores(recipe, tokenizer)
    masking, data = recipe.masking, recipe.data
    weights = [weight for _, weight in data.stores]
    mixture = Mixture(
        stores, None if None in weights else weights, data.budget_tokens, recipe.optimizer.seed, data.sampling_exponent
    )  # fmt: skip
    masker = Masker.from_counts(
        mixture.token_counts, stores[0].meta.special_ids,
        fraction=masking.mlm_fraction, smoothing=masking.mlm_smoothing,
        mask_share=masking.mask_share, keep_share=masking.keep_share,
    )  # fmt: skip
    total = recipe.optimizer.steps or -(-recipe.optimizer.epochs * mixture.micro_batches // data.micro_batches)
    stop = min(total, max_steps or total)
    of_teacher = weights_fingerprint(teacher, config)
    return Job(recipe, placement, teacher, config, tokenizer, mixture, heldout, masker, of_teacher, total, stop)


def _check_family(recipe: Recipe, config: transformers.PreTrainedConfig) -> None:
    family = family_of(config)
    if recipe.loss.alpha_clm > 0:
        raise ConfigError(
            f"alpha_clm is {recipe.loss.alpha_clm}, but a {family.name} sees the next token: it must be 0"
        )


def describe(job: Job) -> str:
    """The plan a person reads before the start: models, parameters, batch arithmetic, steps, tokens."""
    recipe, data, place = job.recipe, job.recipe.data, job.placement
    student = student_config(
        job.teacher_config, recipe.model.student, recipe.model.student_layers, recipe.model.dropout
    )
    layers = " ".join(map(str, recipe.model.student_layers))
    first = job.counts(job.global_batch(0)).attended
    an_epoch = job.mixture.micro_batches
    epochs = job.total_steps * job.micro_batches / an_epoch
    stop = f"; this run stops at {job.stop_step:,}" if job.stop_step < job.total_steps else ""
    rows = {
        "recipe": f"{recipe.name}: {_loss_formula(recipe)}",
        "teacher" if recipe.loss.needs_teacher else "initial weights": f"{job.teacher}, {_size(job.teacher_config)}",
        "student": f"{recipe.model.student} of layers {layers}, {_size(student)}",
        "text": "; ".join(_text_of(job, epochs)),
        "held out": "; ".join(f"{s.tokens:,} tokens in {s.prefix}" for s in job.heldout) or "nothing",
        "placement": f"{place.path}: ZeRO-{place.zero_stage}, {place.precision}, {place.ranks} rank(s)",
        "micro-batch": f"{data.micro_batch_size} x {data.max_length} = {data.budget_tokens:,} tokens at most, packed",
        "global batch": f"{data.micro_batches} micro-batches = {place.accumulation} accumulated x {place.ranks} rank(s)"
        f", {first:,} tokens in the first",
        "schedule": f"{job.total_steps:,} steps = {epochs:.2f} epochs of {an_epoch:,} micro-batches, "
        f"about {epochs * job.mixture.tokens_an_epoch:,.0f} tokens{stop}",
    }
    return "\n".join(f"  {name:<16}{text}" for name, text in rows.items())


def _text_of(job: Job, epochs: float) -> Iterator[str]:
    mixture = job.mixture
    for store, plan, share in zip(mixture.stores, mixture.plans, mixture.shares, strict=True):
        text = f"{len(store):,} sequences, {store.tokens:,} tokens in {store.prefix}, budget {plan.filling:.1%} filled"
        if len(mixture.stores) > 1:
            passes = epochs * float(share * mixture.micro_batches / plan.micro_batches)
            text += f", {float(share):.1%} of the micro-batches, {passes:.2f} passes"
        yield text


def _loss_formula(recipe: Recipe) -> str:
    loss = recipe.loss
    weights = {name: getattr(loss, f"alpha_{name}") for name in WEIGHTED_TERMS}
    terms = " + ".join(f"{alpha:g} {name.upper()}" for name, alpha in weights.items() if alpha)
    return f"{terms}, T = {loss.temperature:g}"


def _size(config: transformers.PreTrainedConfig) -> str:
    family = family_of(config)
    with torch.device("meta"):
        parameters = sum(p.numel() for p in family.model_class(config).parameters())
    return f"{family.layers_of(config)} layers, {parameters / 1e6:.1f} M parameters"
