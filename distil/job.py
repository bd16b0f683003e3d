"""A job: a recipe and a placement made concrete against the models and the text they name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers

from distil.config import Recipe
from distil.data.batch import Batcher
from distil.data.masking import Masker, NextToken, Objective
from distil.data.mixture import Mixture
from distil.data.store import Store
from distil.data.tokenizer import fingerprint, load_tokenizer, special_ids, vocab_size
from distil.errors import ConfigError, DataError
from distil.models.comparison import Comparison
from distil.models.distiller import Counts
from distil.models.families import family_of
from distil.models.family import Family
from distil.models.loading import load_config, load_model, weights_fingerprint
from distil.models.shape import Shape, shape_of, student_config
from distil.models.student import Student, make_student
from distil.models.vocabulary import ids_of, restrict_config_, restrict_vocabulary_
from distil.placement import Placement
from distil.prepare import open_stores
from distil.shares import nearest_share
from distil.tables import SAME, Masking

# Embeddings are often padded to a multiple of 64 or 128 for the hardware; a wider gap is another tokenizer's.
PADDED_VOCABULARY = 128


@dataclass(frozen=True)
class Job:
    """Everything that is known before a model is loaded; the same on every rank.

    ``teacher`` is a folder or hub name, ``total_steps`` the length of the schedule, ``stop_step`` where this run ends.
    ``vocabulary`` are the teacher's ids of the student's tokens where those have another tokenizer, else None;
    ``unknown`` is how many of these tokens the teacher lacks and is shown its unknown token for.
    """

    recipe: Recipe
    placement: Placement
    teacher: str
    teacher_config: transformers.PreTrainedConfig
    tokenizer: transformers.PreTrainedTokenizerBase
    vocabulary: np.ndarray | None
    unknown: int
    shape: Shape
    mixture: Mixture
    heldout: list[Store]
    objective: Objective
    teacher_fingerprint: str
    total_steps: int
    stop_step: int

    @property
    def name(self) -> str:
        """What a run of it is called."""
        return self.recipe.name

    @property
    def micro_batches(self) -> int:
        """Micro-batches of one step, over all ranks."""
        return self.recipe.data.micro_batches

    def batcher(self) -> Batcher:
        """Assembles any micro-batch of the plan."""
        return Batcher(self.mixture, self.objective, self.recipe.optimizer.seed)

    def global_batch(self, first: int) -> range:
        """Stream numbers of the global batch that begins with micro-batch ``first``."""
        return range(first, first + self.micro_batches)

    def counts(self, numbers: range) -> Counts:
        """Rows in these micro-batches, known from the plan before any is assembled."""
        tokens = [self.mixture.tokens(number) for number in numbers]
        sequences = [self.mixture.sequences(number) for number in numbers]
        predicted = sum(self.objective.count(n, b) for n, b in zip(tokens, sequences, strict=True))
        return Counts(sum(tokens), predicted)

    def load_teacher(self, dtype: torch.dtype) -> tuple[transformers.PreTrainedModel, Family]:
        """The teacher, over the student's vocabulary, and its family. Raises DataError."""
        model, family = load_model(self.teacher, dtype)
        if self.vocabulary is not None:
            restrict_vocabulary_(model, family, self.vocabulary, special_ids(self.tokenizer))
        return model, family

    def make_student(self, teacher: transformers.PreTrainedModel) -> Student:
        """The student as training begins with it."""
        return make_student(teacher, self.shape, self.recipe.model.initial_weights, self.recipe.optimizer.seed)

    @property
    def comparable(self) -> bool:
        """Whether the teacher's guesses mean something beside the student's."""
        return self.recipe.loss.needs_teacher and not self.unknown

    @property
    def kd_steps(self) -> int:
        """How many steps compare with the teacher."""
        return nearest_share(self.total_steps, self.recipe.loss.kd_until)

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
    family = family_of(config)
    _check_objective(recipe, family)
    tokenizer, vocabulary, unknown = _tokenizer_of(recipe, teacher, config)
    if vocabulary is not None:
        restrict_config_(config, family, vocabulary, special_ids(tokenizer))
    shape = shape_of(config, recipe.model)
    Comparison.of(recipe.loss, student_config(config, shape), config)
    if recipe.data.max_length > (longest := family.longest(config)):
        raise ConfigError(
            f"max_length is {recipe.data.max_length}, teacher {teacher} has {longest} positions; give --max_length "
            f"{longest}, and a store binarized with it"
        )
    stores, heldout = open_stores(recipe, tokenizer)
    data = recipe.data
    weights = [weight for _, weight in data.stores]
    mixture = Mixture(
        stores, None if None in weights else weights, data.budget_tokens, recipe.optimizer.seed, data.sampling_exponent
    )  # fmt: skip
    objective = NextToken() if family.causal else _masker(recipe, mixture)
    total = recipe.optimizer.steps or -(-recipe.optimizer.epochs * mixture.micro_batches // data.micro_batches)
    stop = min(total, max_steps or total)
    if recipe.loss.kd_until < 1 and nearest_share(total, recipe.loss.kd_until) in (0, total):
        raise ConfigError(
            f"kd_until is {recipe.loss.kd_until}: of {total:,} steps that is none or all; give --kd_until 1, or another"
        )
    of_teacher = weights_fingerprint(teacher, config)
    return Job(
        recipe, placement, teacher, config, tokenizer, vocabulary, unknown, shape, mixture, heldout, objective,
        of_teacher, total, stop,
    )  # fmt: skip


def _masker(recipe: Recipe, mixture: Mixture) -> Masker:
    masking = recipe.masking
    return Masker.from_counts(
        mixture.token_counts, mixture.stores[0].meta.special_ids,
        fraction=masking.mlm_fraction, smoothing=masking.mlm_smoothing,
        mask_share=masking.mask_share, keep_share=masking.keep_share,
    )  # fmt: skip


def _tokenizer_of(
    recipe: Recipe, teacher: str, config: transformers.PreTrainedConfig
) -> tuple[transformers.PreTrainedTokenizerBase, np.ndarray | None, int]:
    """The student's tokenizer and, where it is another, the teacher's ids of its tokens, and how many it lacks."""
    theirs = load_tokenizer(teacher)
    if not 0 <= config.vocab_size - vocab_size(theirs) < PADDED_VOCABULARY:
        raise DataError(
            f"teacher {teacher} has a vocabulary of {config.vocab_size}, its tokenizer one of {vocab_size(theirs)}: "
            "they are not of one model; put the tokenizer there that it was trained with"
        )
    if not recipe.model.tokenizer:
        return theirs, None, 0
    own = load_tokenizer(recipe.model.tokenizer)
    if fingerprint(own) == fingerprint(theirs):
        return own, None, 0
    ids_V, unknown = ids_of(own, theirs)
    if unknown and recipe.loss.compares_logits:
        raise ConfigError(
            f"tokenizer {recipe.model.tokenizer} has {len(unknown):,} tokens that teacher {teacher} has not, such as "
            f"{unknown[0]!r}: logits cannot be compared; take a subset of its vocabulary (binarize.py trim), or "
            "--alpha_ce 0 --alpha_mse 0"
        )
    return own, ids_V, len(unknown)


def _check_objective(recipe: Recipe, family: Family) -> None:
    loss, fraction = recipe.loss, recipe.masking.mlm_fraction
    masked = {name: value for name, value in (("alpha_mlm", loss.alpha_mlm), ("mlm_fraction", fraction)) if value}
    if family.causal and masked:
        found = " and ".join(f"{name} is {value:g}" for name, value in masked.items())
        raise ConfigError(
            f"recipe {recipe.name}: {found}, but its teacher, a {family.name}, predicts the next token: take a recipe "
            f"such as distilgpt2, or give {' '.join(f'--{name} 0' for name in masked)} --alpha_clm 2 --student {SAME}"
        )
    if not family.causal and loss.alpha_clm > 0:
        raise ConfigError(
            f"recipe {recipe.name}: alpha_clm is {loss.alpha_clm:g}, but its teacher, a {family.name}, sees the next "
            "token: take a recipe such as distilbert-base-uncased, or give --alpha_clm 0 and what masks tokens"
        )
    if not family.causal and not fraction:
        remedy = "give --mlm_fraction 0.15"
        if recipe.masking == Masking.none():  # then that alone would not do
            remedy = "give the recipe a table [masking], as distilbert-base-uncased has one"
        raise ConfigError(f"mlm_fraction is 0, but a {family.name} learns from masked tokens: {remedy}")
