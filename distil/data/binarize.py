"""Text to token store: read, tokenise in parallel, cut, filter, hold out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distil.data.store_writer import StoreWriter
from distil.data.tokenizer import fingerprint, special_ids, vocab_size
from distil.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_BATCH_TEXTS = 1000
_BATCH_CHARACTERS = 1 << 22  # bounds the memory of a batch when its texts are whole books
_RECORDS = {".jsonl": "json", ".json": "json", ".parquet": "parquet"}


@dataclass
class BinarizeReport:
    """Counts of one run; ``tokens`` include [CLS] and [SEP], the ``dropped`` and ``split`` ones cover both stores."""

    texts: int = 0
    sequences: int = 0
    tokens: int = 0
    dropped_short: int = 0
    dropped_unknown: int = 0
    split: int = 0
    heldout_texts: int = 0
    heldout_sequences: int = 0
    heldout_tokens: int = 0

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


def read_text(paths: Sequence[str | Path], text_field: str = "text") -> Iterator[str]:
    """Texts of the files, in order: a line each of a text file, a row each of .jsonl, .json and .parquet.

    Blank texts are skipped, white space around a text is cut. Raises DataError at once for a path that is no file, and
    while reading for bytes that are not UTF-8, damaged rows and a missing ``text_field``.
    """
    files = [Path(path) for path in paths]
    for file in files:
        if not file.is_file():
            state = "is a folder" if file.is_dir() else "no such file"
            raise DataError(f"{file}: {state}; name text, .jsonl or .parquet files")
        if not os.access(file, os.R_OK):
            raise DataError(f"{file}: cannot be read; check its permissions")
    return _texts(files, text_field)


def _texts(files: list[Path], text_field: str) -> Iterator[str]:
    for file in files:
        kind = _RECORDS.get(file.suffix.lower())
        if kind is None:
            yield from _lines(file)
        elif file.stat().st_size:  # the reader of records fails on an empty file, which merely holds no text
            yield from _records(str(file), text_field, kind, data_files=[str(file.resolve())], split="train")


def _lines(file: Path) -> Iterator[str]:
    offset = 0
    with open(file, "rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                at = offset + error.start
                raise DataError(
                    f"{file}: line {number}: byte {at} is not UTF-8 ({error.reason}); convert it, e.g. with iconv"
                ) from error
            if text:
                yield text
            offset += len(line)


def read_dataset(name: str, config: str | None, split: str, text_field: str = "text") -> Iterator[str]:
    """Texts of one split of a dataset, streamed; raises DataError if it cannot be had or lacks ``text_field``."""
    return _records(name, text_field, name, config, split=split)


def _records(source: str, text_field: str, *args: Any, **kwargs: Any) -> Iterator[str]:
    import datasets

    # Its log would repeat on standard error what the DataError below says in one line.
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        for row in datasets.load_dataset(*args, **kwargs, streaming=True):
            if text_field not in row:
                columns = ", ".join(sorted(row))
                raise DataError(f"{source}: no column {text_field!r}; its columns are {columns}: set --text_field")
            text = row[text_field]
            if text is None:
                continue
            if not isinstance(text, str):
                raise DataError(f"{source}: column {text_field!r} holds {type(text).__name__}, not text")
            if text := text.strip():
                yield text
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - each file format and each way to the hub fails in its own way
        reason = f"{type(error).__name__}: {error}"[:300]
        raise DataError(f"{source}: cannot be read ({reason}); check its name, split and contents") from error


def binarize(
    texts: Iterable[str],
    tokenizer: PreTrainedTokenizerFast,
    prefix: str | Path,
    *,
    max_length: int = 512,
    min_length: int = 12,
    heldout_fraction: float = 0.0,
    overwrite: bool = False,
    progress: bool = True,
) -> BinarizeReport:
    """Write the store ``prefix``, and ``prefix``-heldout if ``heldout_fraction`` > 0, once both are complete.

    Lengths are in ids, [CLS] and [SEP] included. A text is cut into pieces of ``max_length``; pieces below
    ``min_length`` and pieces at least half unknown are dropped. A text is held out by a hash of itself alone, so
    neither order nor repetition moves it. Raises ConfigError on a bad setting, DataError on unusable input or output.
    """
    if not 3 <= min_length <= max_length:
        raise ConfigError(f"min_length {min_length} and max_length {max_length} must satisfy 3 <= min <= max")
    if not 0.0 <= heldout_fraction < 1.0:
        raise ConfigError(f"heldout_fraction {heldout_fraction} must be at least 0 and below 1")
    heldout_prefix = f"{Path(prefix)}-heldout"
    if heldout_fraction == 0.0 and os.path.exists(heldout_prefix + ".json"):
        raise DataError(
            f"{heldout_prefix}: a held-out store of another build, whose texts {prefix} would now train on; "
            "remove it, hold out again, or choose another --out"
        )
    cut = _Cutter(tokenizer, max_length, min_length)
    report = BinarizeReport()
    with ExitStack() as stack:
        build = {**cut.origin, "max_length": max_length, "overwrite": overwrite}
        store = stack.enter_context(StoreWriter(prefix, **build))
        heldout = stack.enter_context(StoreWriter(heldout_prefix, **build)) if heldout_fraction else None
        for batch in _batches(texts, progress):
            held = [heldout is not None and _is_held_out(text, heldout_fraction) for text in batch]
            sequences = cut(batch, held, report)
            store.append_many(sequences[False])
            if heldout is not None:
                heldout.append_many(sequences[True])
        for writer in (store, heldout):
            if writer is not None and not writer.sequences:
                raise DataError(
                    f"{writer.prefix}: the input holds no usable sequence for it: {report.texts} texts read, "
                    f"{report.dropped_short} pieces shorter than {min_length} tokens, {report.dropped_unknown} at "
                    "least half unknown; give more text, or another tokenizer"
                )
    report.sequences, report.tokens = store.sequences, store.tokens
    if heldout is not None:
        report.heldout_sequences, report.heldout_tokens = heldout.sequences, heldout.tokens
    return report


def _is_held_out(text: str, fraction: float) -> bool:
    return (
        int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big") < fraction * 2**64
    )


def _batches(texts: Iterable[str], progress: bool) -> Iterator[list[str]]:
    from tqdm import tqdm

    batch: list[str] = []
    characters = 0
    # disable=None: no bar where nobody watches, so that logs stay clean and an error stands alone.
    for text in tqdm(texts, unit=" texts", disable=None if progress else True, leave=False):
        if not isinstance(text, str):
            raise DataError(f"a text is {type(text).__name__}: {text!r:.80}; pass strings")
        batch.append(text)
        characters += len(text)
        if len(batch) >= _BATCH_TEXTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _Cutter:
    """Texts to sequences of ids, [CLS] first and [SEP] last, none longer than ``max_length``."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, max_length: int, min_length: int) -> None:
        from tokenizers import Tokenizer

        self.max_length, self.min_length = max_length, min_length
        special = special_ids(tokenizer)
        if not {"cls", "sep"} <= set(special):
            raise DataError(
                f"{tokenizer.name_or_path}: no token opens or closes a sequence; set cls_token and sep_token"
            )
        self.cls, self.sep, self.unk = special["cls"], special["sep"], special.get("unk")
        self.origin = {
            "tokenizer_name": str(tokenizer.name_or_path),
            "tokenizer_fingerprint": fingerprint(tokenizer),
            "special_ids": special,
            "vocab_size": vocab_size(tokenizer),
        }
        # A copy, since the caller's tokenizer may come with truncation and padding, and should keep them.
        self.backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self.backend.no_truncation()
        self.backend.no_padding()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

    def __call__(self, texts: list[str], held: list[bool], report: BinarizeReport) -> dict[bool, list[list[int]]]:
        """The usable sequences, by whether their text is held out; what became of the texts goes to ``report``."""
        sequences: dict[bool, list[list[int]]] = {False: [], True: []}
        room = self.max_length - 2
        for encoding, kept_back in zip(self._encode(texts, report.texts), held, strict=True):
            ids = encoding.ids
            report.texts += 1
            report.heldout_texts += kept_back
            report.split += len(ids) > room
            for start in range(0, max(len(ids), 1), room):
                piece = [self.cls, *ids[start : start + room], self.sep]
                if len(piece) < self.min_length:
                    report.dropped_short += 1
                elif self.unk is not None and 2 * piece.count(self.unk) >= len(piece):
                    report.dropped_unknown += 1
                else:
                    sequences[kept_back].append(piece)
        return sequences

    def _encode(self, texts: list[str], before: int) -> list[Any]:
        try:
            return self.backend.encode_batch_fast(texts, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError) as error:
            where = f"texts {before + 1} to {before + len(texts)}"
            raise DataError(f"{where}: one is not valid Unicode ({error}); drop its lone surrogates") from error
