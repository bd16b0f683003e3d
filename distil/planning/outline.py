"""What is planned: models, rows of typical micro-batches, steps; made of what is here, without a network.

A teacher that is not here has the published shape of its name, a text that is not here a stated number of tokens in
sequences of the recipe's ``max_length``. What is so assumed is said in ``notes``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import transformers

from distil.config import Recipe
from distil.data import samples
from distil.data.mixture import Mixture
from distil.data.store import Store
from distil.data.tokenizer import load_tokenizer, vocab_size
from distil.errors import DataError
from distil.folder import prepared
from distil.models.comparison import Comparison
from distil.models.families import family_of
from distil.models.loading import load_config
from distil.models.shape import shape_of, student_config
from distil.placement import Placement
from distil.planning.architectures import published
from distil.planning.products import Rows
from distil.prepare import FROM_RECIPE, fitted, sample_prefix, with_stores_found
from distil.rundir import STUDENT
from distil.shares import ceil_share, nearest_share

# Tokens of shipped recipes' own corpora: arXiv 1910.01108's 16 GB of text are about so many WordPieces; the built-in
# summaries, less what is held out, as binarized.
CORPORA = {"distilbert-base-uncased": 3_500_000_000, "quickstart": 982_562}
LOOKED_AT = 4  # micro-batches of a store whose lengths stand for all


@dataclass(frozen=True)
class Outline:
    """A job as far as it decides what it takes. ``mixture`` is None where the text is not here.

    ``student`` and ``teacher`` are configs; ``rows`` those of a few micro-batches, ``notes`` what is assumed.
    ``tokens_an_epoch`` are None where nobody knows them, and the steps are given.
    """

    recipe: Recipe
    placement: Placement
    student: transformers.PreTrainedConfig
    teacher: transformers.PreTrainedConfig
    mixture: Mixture | None
    rows: tuple[Rows, ...]
    tokens_an_epoch: float | None
    steps: int
    notes: tuple[str, ...]

    @property
    def tokens_a_micro_batch(self) -> float:
        """On average."""
        if self.mixture is not None:
            return self.mixture.tokens_an_epoch / self.mixture.micro_batches
        return sum(rows.attended for rows in self.rows) / len(self.rows)

    @property
    def tokens_a_step(self) -> float:
        """In a global batch."""
        return self.tokens_a_micro_batch * self.recipe.data.micro_batches

    @property
    def tokens(self) -> float:
        """Of the whole training."""
        return self.tokens_a_step * self.steps

    @property
    def taught(self) -> float:
        """Share of the steps in which a teacher is compared with."""
        loss = self.recipe.loss
        return nearest_share(self.steps, loss.kd_until) / self.steps if loss.needs_teacher else 0.0


def outline(recipe: Recipe, placement: Placement, tokens: float | None) -> Outline:
    """What a recipe comes to; ``tokens`` of an epoch where its text is not to be looked at.

    Raises DataError where the teacher's shape cannot be known, or the number of steps for want of the text's size, and
    for a store that is damaged or a pattern that finds none; ConfigError where parts of the recipe
    do not go together.
    """
    notes: list[str] = []
    teacher = _teacher_config(recipe, notes)
    student = student_config(teacher, shape_of(teacher, recipe.model))
    Comparison.of(recipe.loss, student, teacher)
    mixture = None if tokens else _mixture(recipe)
    data = recipe.data
    if mixture is not None:
        an_epoch, micro_batches = mixture.tokens_an_epoch, mixture.micro_batches
        every = max(1, micro_batches // LOOKED_AT)
        lengths = [mixture.gather(number)[1].tolist() for number in range(0, micro_batches, every)][:LOOKED_AT]
    else:
        an_epoch = tokens or _published_tokens(recipe, notes)
        micro_batches = -(-int(an_epoch or 0) // data.budget_tokens)
        lengths = [[data.max_length] * data.micro_batch_size]
        notes.append(f"no text is looked at: all sequences have {data.max_length} tokens (assumed)")
    causal = family_of(student).causal
    rows = tuple(_rows(of, recipe.masking.mlm_fraction, causal) for of in lengths)
    steps = recipe.optimizer.steps or -(-recipe.optimizer.epochs * micro_batches // data.micro_batches)
    return Outline(recipe, placement, student, teacher, mixture, rows, an_epoch, steps, tuple(notes))


def _rows(lengths: list[int], fraction: float, causal: bool) -> Rows:
    """As ``data.masking`` counts what is predicted."""
    return Rows(lengths, sum(lengths) - len(lengths) if causal else ceil_share(sum(lengths), fraction))


def teacher_place(name: str) -> str:
    """Folder or hub name behind a recipe's ``teacher``; a built-in one that has not been made yet keeps its name."""
    if name.startswith(FROM_RECIPE):
        of_teacher = Recipe.load(name.removeprefix(FROM_RECIPE))
        folder = fitted(of_teacher) / STUDENT
        return str(folder) if folder.is_dir() else teacher_place(of_teacher.model.teacher)
    if name.startswith(samples.PREFIX) and (folder := prepared() / name.removeprefix(samples.PREFIX)).is_dir():
        return str(folder)
    return name


def _teacher_config(recipe: Recipe, notes: list[str]) -> transformers.PreTrainedConfig:
    name = teacher_place(recipe.model.teacher)
    try:
        config = load_config(name)
    except DataError as error:
        config = published(name)
        if config is None:
            raise DataError(f"{error}; for its shape give --teacher a folder with its config.json") from error
        notes.append(f"teacher {name} is not here: its published shape")
    if recipe.model.tokenizer:
        config.vocab_size = vocab_size(load_tokenizer(recipe.model.tokenizer))
    return config


def _mixture(recipe: Recipe) -> Mixture | None:
    """The recipe's stores as one stream, or None where one is not here. Raises DataError."""
    prefixes = list(_prefixes(recipe))
    if not all(prefix and Path(f"{prefix}.json").exists() for prefix in prefixes):
        return None
    data, weights = recipe.data, [weight for _, weight in with_stores_found(recipe).data.stores]
    return Mixture(
        [Store.open(prefix) for prefix in prefixes], None if None in weights else weights, data.budget_tokens,
        recipe.optimizer.seed, data.sampling_exponent,
    )  # fmt: skip


def _prefixes(recipe: Recipe) -> Iterator[str | None]:
    """Of each store; None for a built-in one whose tokenizer, which is in its name, is not here."""
    for prefix, _ in with_stores_found(recipe).data.stores:
        yield _sample(prefix, recipe) if prefix.startswith(samples.PREFIX) else prefix


def _sample(store: str, recipe: Recipe) -> str | None:
    place = recipe.model.tokenizer or teacher_place(recipe.model.teacher)
    try:
        tokenizer = load_tokenizer(place)
    except DataError:
        if Path(place).is_dir():
            raise
        return None
    return str(sample_prefix(store.removeprefix(samples.PREFIX), tokenizer, recipe.data.max_length))


def _published_tokens(recipe: Recipe, notes: list[str]) -> int | None:
    """Of an epoch of a shipped recipe's own text; of another, None where the steps are given, or DataError."""
    store = " ".join(recipe.data.store)
    if recipe.name in CORPORA and recipe.data.store == Recipe.load(recipe.name).data.store:
        notes.append(f"store {store} is not here: {CORPORA[recipe.name]:,} tokens, as told")
        return CORPORA[recipe.name]
    if not recipe.optimizer.steps:
        raise DataError(
            f"recipe {recipe.name}: its text {store} is not here; say how many tokens an epoch has, as in "
            "--tokens 1e9, or give --store a store that is, or --steps"
        )
    notes.append(f"store {store} is not here: as many steps as are given")
    return None
