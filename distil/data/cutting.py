"""A piece of text to sequences of ids: tokenise, cut, filter, hold out. A pure function of the piece."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from distil.data.pieces import Piece
from distil.data.store_meta import Origin, dtype_for
from distil.data.tokenizer import fingerprint, special_ids, vocab_size
from distil.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BATCH_TEXTS = 1000
_BATCH_CHARACTERS = 1 << 19  # what the tokenizer keeps of a text takes a hundred times the room of its ids


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


@dataclass
class _Sequences:
    """Sequences as they come, in as few arrays as there are batches."""

    ids: list[np.ndarray] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)

    def joined(self, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        ids = np.concatenate(self.ids) if self.ids else np.empty(0, np.int64)
        return ids.astype(dtype), np.array(self.sizes, dtype=np.int32)


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

    def backend(self) -> Any:
        """The tokenizer itself, which a process makes once."""
        from tokenizers import Tokenizer

        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # there are as many processes as there are to be
        backend = Tokenizer.from_str(self.tokenizer)
        backend.no_truncation()
        backend.no_padding()
        return backend

    def cut(self, piece: Piece, backend: Any) -> Cut:
        """The usable sequences of a piece. Raises DataError on text that cannot be read or is no Unicode."""
        report, kept, held = BinarizeReport(), _Sequences(), _Sequences()
        try:
            for texts, is_held in _batches(piece, self.heldout_fraction):
                for encoded, kept_back in zip(_encode(backend, texts), is_held, strict=True):
                    report.texts += 1
                    report.heldout_texts += kept_back
                    self._pieces_of(encoded, held if kept_back else kept, report)
        except OSError as error:
            raise DataError(f"{piece.name}: cannot be read ({error.strerror}); check the file") from error
        except UnicodeEncodeError as error:
            where = f"{piece.name}: a text between {piece.offset} and {piece.end}"
            raise DataError(f"{where} is not valid Unicode ({error}); drop its lone surrogates") from error
        dtype = np.dtype(dtype_for(self.origin.vocab_size))
        (ids, sizes), (held_ids, held_sizes) = kept.joined(dtype), held.joined(dtype)
        report.sequences, report.tokens = sizes.size, ids.size
        report.heldout_sequences, report.heldout_tokens = held_sizes.size, held_ids.size
        return Cut(ids, sizes, held_ids, held_sizes, report)

    def _pieces_of(self, ids: list[int], out: _Sequences, report: BinarizeReport) -> None:
        special = self.origin.special_ids
        cls, sep, unknown = special["cls"], special["sep"], special.get("unk")
        room = self.origin.max_length - 2
        report.split += len(ids) > room
        for start in range(0, max(len(ids), 1), room):
            sequence = [cls, *ids[start : start + room], sep]
            if len(sequence) < self.min_length:
                report.dropped_short += 1
            elif unknown is not None and 2 * sequence.count(unknown) >= len(sequence):
                report.dropped_unknown += 1
            else:
                out.ids.append(np.array(sequence))
                out.sizes.append(len(sequence))


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
            if len(texts) >= _BATCH_TEXTS or characters >= _BATCH_CHARACTERS:
                yield texts, held
                texts, held, characters = [], [], 0
    if texts:
        yield texts, held


def _is_held_out(text: str, fraction: float) -> bool:
    digest = blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def _encode(backend: Any, texts: list[str]) -> Iterator[list[int]]:
    """Ids of each text; a very long one goes through the tokenizer in portions, cut at spaces."""
    if sum(map(len, texts)) < 2 * _BATCH_CHARACTERS:
        yield from (encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False))
        return
    for text in texts:
        ids: list[int] = []
        for portion in _portions(text):
            ids += backend.encode_batch_fast([portion], add_special_tokens=False)[0].ids
        yield ids


def _portions(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > _BATCH_CHARACTERS:
        space = text.find(" ", start + _BATCH_CHARACTERS)
        if space < 0:
            break
        yield text[start:space]
        start = space
    yield text[start:]
