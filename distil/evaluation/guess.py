"""What models guess for a masked word, or for the next one: the most probable tokens, at several temperatures.

The softmax at temperature T is that of logits divided by T, as the distillation loss has it (Hinton et al. 2015, arXiv
1503.02531): at T = 2 a teacher says more of what it holds for less likely.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import transformers

from distil.data.tokenizer import load_tokenizer
from distil.errors import ConfigError, DataError
from distil.models.families import family_of
from distil.models.loading import load_model

TEMPERATURES = (1.0, 2.0)
MASK = "[MASK]"
BLANK = "____"  # the one that is guessed, where a text is shown
_COMMON = (MASK, "<mask>")  # understood whatever the tokenizer's own is
_SPACES = ("\u0120", "\u2581")  # what tokenizers of bytes and of SentencePiece write for the space before a word


@dataclass(frozen=True)
class Guess:
    """A token as a person reads it and its probability at each temperature; ``\u2423`` is the space before a word."""

    token: str
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Guesses:
    """One model's most probable tokens for a blank, best first; ``rest`` is what all ``others`` have together."""

    model: str
    top: tuple[Guess, ...]
    rest: tuple[float, ...]
    others: int


@dataclass(frozen=True)
class Blank:
    """A place to be guessed: the text with ``____`` there, and the guesses of each model.

    ``note`` names the models that saw less of the text than the others, and what they saw.
    """

    text: str
    temperatures: tuple[float, ...]
    models: tuple[Guesses, ...]
    note: str = ""


@dataclass(frozen=True)
class Guesser:
    """A model that guesses, under the ``title`` of its column; ``name`` is where it was loaded from."""

    title: str
    name: str
    model: transformers.PreTrainedModel
    tokenizer: transformers.PreTrainedTokenizerFast

    @classmethod
    def load(cls, title: str, name_or_dir: str) -> Self:
        """A language model with its tokenizer, in fp32. Raises DataError and ConfigError."""
        tokenizer = load_tokenizer(name_or_dir)
        model, _ = load_model(name_or_dir, torch.float32)
        model.set_attn_implementation("sdpa")
        return cls(title, name_or_dir, model, tokenizer)

    @torch.no_grad()
    def guess(self, text: str, top: int, temperatures: Sequence[float] = TEMPERATURES) -> list[Guesses]:
        """The ``top`` guesses for each mask of the text, all masked at once, or of a causal model for the next token.

        Raises ConfigError for a text that the model cannot take, DataError for a model that says no finite number.
        """
        ids, places = self._encoded(text)
        logits_MV = self.model(input_ids=torch.tensor([ids])).logits[0, places].double()
        if not logits_MV.isfinite().all():
            raise DataError(f"model {self.name} gives no finite numbers for this text; are its weights whole?")
        return [self._best(logits_V, top, temperatures) for logits_V in logits_MV]

    def shown(self, text: str) -> list[str]:
        """The text with ____ in place of each mask in turn; of a causal model up to what it guesses."""
        before, *after = self._split(text)
        if self.causal:
            return [f"{before.rstrip()} {BLANK}"]
        parts = [before, *after]
        return [
            "".join(part + mark for part, mark in zip(parts, [*marks, ""], strict=True))
            for marks in ([BLANK if j == i else MASK for j in range(len(after))] for i in range(len(after)))
        ]

    @property
    def causal(self) -> bool:
        """Whether it guesses the token after a text."""
        return family_of(self.model.config).causal

    def ignores(self, text: str) -> bool:
        """Whether there is text that it does not see: after the mask, of a causal model."""
        return self.causal and any(part.strip() for part in self._split(text)[1:])

    def _split(self, text: str) -> list[str]:
        masks = {*_COMMON, self.tokenizer.mask_token} - {None}
        return re.split("|".join(re.escape(mask) for mask in sorted(masks)), text)

    def _encoded(self, text: str) -> tuple[list[int], list[int]]:
        """Ids, and the places whose logits are the guesses."""
        family, parts = family_of(self.model.config), self._split(text)
        if self.causal:
            if len(parts) > 2:
                raise ConfigError(
                    f"{self.name}, a {family.name}, guesses the token after the text: give one {MASK}, or none"
                )
            ids = self.tokenizer(parts[0].rstrip())["input_ids"]
            places = [len(ids) - 1]
        else:
            if self.tokenizer.mask_token is None:
                raise DataError(f"the tokenizer of {self.name} has no mask token; add it to tokenizer_config.json")
            ids = self.tokenizer(self.tokenizer.mask_token.join(parts))["input_ids"]
            places = [i for i, token in enumerate(ids) if token == self.tokenizer.mask_token_id]
            if not places:
                raise ConfigError(
                    f"the text has no {MASK} for {self.name}, a {family.name}; write it where a word is to be guessed"
                )
        self._refuse(ids)
        return ids, places

    def _refuse(self, ids: list[int]) -> None:
        config = self.model.config
        if not ids:
            raise ConfigError(f"there is no text before what {self.name} is to guess; give some")
        if len(ids) > (longest := family_of(config).longest(config)):
            raise ConfigError(
                f"the text is {len(ids):,} tokens long, model {self.name} has {longest:,} positions; shorten it"
            )
        if max(ids) >= config.vocab_size:
            raise DataError(
                f"model {self.name} has a vocabulary of {config.vocab_size:,}, its tokenizer gives id {max(ids):,}: "
                "they are not of one model; put the tokenizer there that it was trained with"
            )

    def _best(self, logits_V: torch.Tensor, top: int, temperatures: Sequence[float]) -> Guesses:
        best = torch.sort(logits_V, descending=True, stable=True).indices[:top]  # one order: T keeps it
        chances_TV = torch.stack([torch.softmax(logits_V / t, dim=-1) for t in temperatures])
        guesses = [
            Guess(self._word(i), tuple(chances_T))
            for i, chances_T in zip(best.tolist(), chances_TV[:, best].T.tolist(), strict=True)
        ]
        chances_TV[:, best] = 0
        return Guesses(self.title, tuple(guesses), tuple(chances_TV.sum(1).tolist()), len(logits_V) - len(best))

    def _word(self, token_id: int) -> str:
        token = self.tokenizer.convert_ids_to_tokens(token_id)
        if token is None:
            return f"id {token_id}"  # a row of the embeddings beyond the vocabulary
        text = self.tokenizer.decode([token_id]).strip(" ")
        if not text or "\ufffd" in text:  # a space, or part of a character
            text = token
        elif token.startswith(_SPACES):
            text = f"\u2423{text}"
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def guess(
    guessers: Sequence[Guesser], text: str, top: int, temperatures: Sequence[float] = TEMPERATURES
) -> list[Blank]:
    """What each model guesses for each blank of a text. Raises ConfigError and DataError.

    Each model reads the text through its own tokenizer, so their vocabularies may differ.
    """
    if not text.strip():
        raise ConfigError(f"the text is empty; give one with {MASK} in it")
    if top < 1:
        raise ConfigError(f"--top is {top}; it must be 1 or more")
    by_model = [guesser.guess(text, top, temperatures) for guesser in guessers]
    if len({len(blanks) for blanks in by_model}) > 1:
        raise ConfigError(f"the tokenizers of {' and '.join(g.name for g in guessers)} find other numbers of masks")
    fullest = min(guessers, key=lambda guesser: guesser.causal)
    blind = [g for g in guessers if not fullest.causal and g.ignores(text)]
    note = "; ".join(f"{g.title} saw only: {g.shown(text)[0]}" for g in blind)
    return [
        Blank(shown, tuple(temperatures), models, note)
        for shown, models in zip(fullest.shown(text), zip(*by_model, strict=True), strict=True)
    ]
