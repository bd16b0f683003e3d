"""A piece of text to sequences of ids: tokenise, cut, filter, hold out. A pure function of the piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from hashlib import blake2b
from typing import TYPE_CHECKING, Self

import numpy as np

from distil.data.pieces import Piece
from distil.data.store_meta import Origin, dtype_for
from distil.data.tokenizer import fingerprint, special_ids, vocab_size
from distil.data.words import TEXT_CHARACTERS, Encoder
from distil.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BATCH_TEXTS = 1000


@dataclass
class BinarizeReport:
    """Counts of one build; ``tokens`` include [CLS] and [SEP], the ``dropped`` and ``split`` ones cover both stores."""

    texts: int = 0
    sequences: int = 0
    tokens: int = 0
    dropped_short: int = 0
    dropped_unknown: int = 0
    split: int = 0
    heldout_texts: int = 0
    heldout_sequences: int = 0
    heldout_tokens: int = 0

    def add(self, other: BinarizeReport) -> None:
        """Add another's counts to these."""
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))

    def __str__(self) -> str:
        rows = [
            ("texts read", self.texts),
            ("  of these held out", self.heldout_texts),
            ("  of these cut into pieces", self.split),
            ("sequences dropped: too short", self.dropped_short),
            ("sequences dropped: unknown tokens", self.dropped_unknown),
            ("sequences stored", self.sequences),
            ("tokens stored", self.tokens),
            ("sequences stored, held out", self.heldout_sequences),
            ("tokens stored, held out", self.heldout_tokens),
        ]
        return "\n".join(f"{name:<36}{count:>18,}" for name, count in rows)


@dataclass
class Cut:
    """What became of a piece: ids back to back and sizes, of the store and of what is held out."""

    ids: np.ndarray
    sizes: np.ndarray
    heldout_ids: np.ndarray
    heldout_sizes: np.ndarray
    report: BinarizeReport


@dataclass(frozen=True)
class Cutter:
    """Cuts pieces into sequences of ids, [CLS] first and [SEP] last; ``tokenizer`` is its serialised backend."""

    tokenizer: str
    origin: Origin
    min_length: int
    heldout_fraction: float

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerFast, max_length: int, min_length: int, heldout_fraction: float
    ) -> Self:  # fmt: skip
        """A cutter that neither obeys nor changes the tokenizer's truncation and padding. Raises DataError."""
        special = special_ids(tokenizer)
        if not {"cls", "sep"} <= set(special):
            raise DataError(
                f"{tokenizer.name_or_path}: no token opens or closes a sequence; set cls_token and sep_token"
            )
        identity = {"name": str(tokenizer.name_or_path), "fingerprint": fingerprint(tokenizer)}
        origin = Origin(identity, special, vocab_size(tokenizer), max_length)
        return cls(tokenizer.backend_tokenizer.to_str(), origin, min_length, heldout_fraction)

    @property
    def dtype(self) -> np.dtype:
        """Type of the stored ids."""
        return np.dtype(dtype_for(self.origin.vocab_size))

    def encoder(self) -> Encoder:
        """What turns texts into ids; a process makes it once."""
        return Encoder(self.tokenizer, self.dtype)

    def cut(self, piece: Piece, encoder: Encoder) -> Cut:
        """The usable sequences of a piece. Raises DataError on text that cannot be read or is no Unicode."""
        report = BinarizeReport()
        parts: dict[bool, list[tuple[np.ndarray, np.ndarray]]] = {False: [], True: []}
        try:
            for texts, held in _batches(piece, self.heldout_fraction):
                ids, counts = _encoded(encoder, texts, piece)
                report.texts += len(texts)
                report.heldout_texts += sum(held)
                for is_held, part in self._sequences(ids, counts, np.array(held), report):
                    parts[is_held].append(part)
        except OSError as error:
            raise DataError(f"{piece.name}: cannot be read ({error.strerror}); check the file") from error
        (ids, sizes), (held_ids, held_sizes) = (self._joined(parts[is_held]) for is_held in (False, True))
        report.sequences, report.tokens = sizes.size, ids.size
        report.heldout_sequences, report.heldout_tokens = held_sizes.size, held_ids.size
        return Cut(ids, sizes, held_ids, held_sizes, report)

    def _joined(self, parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        ids, sizes = ([part[i] for part in parts] for i in (0, 1))
        return np.concatenate([np.empty(0, self.dtype), *ids]), np.concatenate([np.empty(0, np.int32), *sizes])

    def _sequences(
        self, ids_N: np.ndarray, counts_T: np.ndarray, held_T: np.ndarray, report: BinarizeReport
    ) -> Iterator[tuple[bool, tuple[np.ndarray, np.ndarray]]]:  # fmt: skip
        """(whether held out, (ids, sizes)) of the usable sequences of T texts with N ids in all, for both splits."""
        room = self.origin.max_length - 2
        pieces_T = np.maximum(-(-counts_T // room), 1)  # a text without ids is one piece, too short
        report.split += int((counts_T > room).sum())
        starts_T = np.cumsum(counts_T) - counts_T
        text_P = np.repeat(np.arange(len(counts_T)), pieces_T)
        within_P = (np.arange(len(text_P)) - np.repeat(np.cumsum(pieces_T) - pieces_T, pieces_T)) * room
        starts_P = starts_T[text_P] + within_P
        sizes_P = np.minimum(counts_T[text_P] - within_P, room)
        long_P = sizes_P + 2 >= self.min_length
        known_P = 2 * self._unknown(ids_N, starts_P, sizes_P) < sizes_P + 2
        report.dropped_short += int((~long_P).sum())
        report.dropped_unknown += int((long_P & ~known_P).sum())
        held_P = held_T[text_P]
        for is_held in (False, True):
            usable_P = long_P & known_P & (held_P == is_held)
            yield is_held, self._wrapped(ids_N[np.repeat(usable_P, sizes_P)], sizes_P[usable_P])

    def _unknown(self, ids_N: np.ndarray, starts_P: np.ndarray, sizes_P: np.ndarray) -> np.ndarray:
        """How many ids of each piece are of unknown words."""
        unknown = self.origin.special_ids.get("unk")
        if unknown is None:
            return np.zeros(len(sizes_P), np.int64)
        before_N1 = np.concatenate(([0], np.cumsum(ids_N == unknown)))
        return before_N1[starts_P + sizes_P] - before_N1[starts_P]

    def _wrapped(self, ids_N: np.ndarray, sizes_P: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pieces with [CLS] before and [SEP] after each, back to back, and their sizes with these."""
        ends_P = np.cumsum(sizes_P + 2)
        out = np.empty(len(ids_N) + 2 * len(sizes_P), self.dtype)
        inner = np.ones(len(out), dtype=bool)
        for at_P, name in ((ends_P - sizes_P - 2, "cls"), (ends_P - 1, "sep")):
            out[at_P] = self.origin.special_ids[name]
            inner[at_P] = False
        out[inner] = ids_N
        return out, (sizes_P + 2).astype(np.int32)


def _encoded(encoder: Encoder, texts: list[str], piece: Piece) -> tuple[np.ndarray, np.ndarray]:
    try:
        return encoder.encode(texts)
    except (TypeError, UnicodeEncodeError) as error:
        where = f"{piece.name}: a text between {piece.offset} and {piece.end}"
        raise DataError(f"{where} is not valid Unicode ({error}); drop its lone surrogates") from error


def _batches(piece: Piece, heldout_fraction: float) -> Iterator[tuple[list[str], list[bool]]]:
    """Texts, some at a time, and whether each is held out: by a hash of its document alone."""
    texts: list[str] = []
    held: list[bool] = []
    characters = 0
    for document in piece.documents():
        is_held = heldout_fraction > 0 and _is_held_out("\n".join(document), heldout_fraction)
        for text in document:
            texts.append(text)
            held.append(is_held)
            characters += len(text)
            if len(texts) >= _BATCH_TEXTS or characters >= TEXT_CHARACTERS:
                yield texts, held
                texts, held, characters = [], [], 0
    if texts:
        yield texts, held


def _is_held_out(text: str, fraction: float) -> bool:
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64
