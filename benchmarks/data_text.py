"""Section ``text``: real text to ids on disk, ours beside the way of the public training script of 2019."""

from __future__ import annotations

import pickle
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from data_fresh import table, verdict

from distil.data import samples
from distil.data.binarize import binarize
from distil.data.cutting import Cutter
from distil.data.sources import Source
from distil.data.store import Store
from distil.data.tokenizer import load_tokenizer
from distil.data.words import Encoder
from distil.prepare import sample_encoder

REPEATS = 12  # of the text for ours, so that starting workers counts as little as it does in earnest
SHARE = 5  # every fifth line for the public way
TURNS = 3
PIECES = 3  # of which the tokenizer's share of a worker's time is taken
TEXTS = 1000  # given to the tokenizer at once, as ``Cutter`` does
WANTED = 20.0
ONCE = "1 worker, the text once"


def report(folder: Path) -> list[str]:
    """Take turns, then look into one worker; Markdown."""
    lines = list(samples.texts("wiki-summaries-en"))
    text, once, share = (folder / name for name in ("text.txt", "once.txt", "share.txt"))
    for path, some in ((text, lines * REPEATS), (once, lines), (share, lines[::SHARE])):
        path.write_text("\n".join(some) + "\n", encoding="utf-8")
    tokenizer = load_tokenizer(sample_encoder("minilm-l6"))
    slow = slow_tokenizer(tokenizer, folder / "vocab.txt")
    rates: dict[str, list[float]] = {"public way": [], "1 worker": [], "2 workers": [], ONCE: []}
    for _ in range(TURNS):
        rates["public way"].append(public_way(share, slow, folder / "public.pickle"))
        for workers, name in enumerate(("1 worker", "2 workers"), 1):
            rates[name].append(our_way(text, tokenizer, folder / "ours", workers))
        rates[ONCE].append(our_way(once, tokenizer, folder / "once", 1))
    median = {name: statistics.median(each) for name, each in rates.items()}
    alike = same_ids(folder / "ours", folder / "public.pickle", lines[::SHARE])
    rows = [["public way, tokens/s", f"{median['public way']:,.0f}", "", "1"]]
    for name in (ONCE, "1 worker", "2 workers"):
        times = median[name] / median["public way"]
        wanted = f">= {WANTED:.0f} x" if name == "2 workers" else ""
        ratio = f"{times:.1f} x the public way" + (f"; {verdict(times, WANTED)}" if wanted else "")
        rows.append([f"ours, {name}, tokens/s", f"{median[name]:,.0f}", wanted, ratio])
    rows.append(["lines of the share whose ids are the same", f"{alike:.1%}", "", ""])
    return [
        f"{len(lines):,} summaries of English Wikipedia, BERT's uncased vocabulary; medians of {TURNS} turns. The "
        f"public way reads every {SHARE}th line, tokenises it with transformers' pure Python tokenizer, and pickles a "
        f"shuffled list of uint16 arrays. Ours reads the text {REPEATS} times over ({text.stat().st_size / 1e6:.0f} "
        f"MB), so that few words are new; and once ({once.stat().st_size / 1e6:.0f} MB), where more are and publishing "
        "counts for more. It is timed from the call to the published store: reading, starting the worker processes, "
        "counting, checksums, waiting for the disk. Starting Python and loading a tokenizer in it is left out of both.",
        "",
        *table("what | figure | wanted | ratio", rows),
        *inside_a_worker(text, tokenizer),
    ]


def slow_tokenizer(tokenizer: object, vocabulary: Path) -> object:
    """The pure Python tokenizer of the same vocabulary."""
    from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

    ids = tokenizer.get_vocab()
    vocabulary.write_text("\n".join(sorted(ids, key=ids.__getitem__)) + "\n", encoding="utf-8")
    return BertTokenizerLegacy(str(vocabulary))


def public_way(text: Path, slow: object, out: Path) -> float:
    """Tokens a second, written after the public binarized_data.py."""
    began = time.perf_counter()
    lists = []
    with open(text, encoding="utf-8") as file:
        for line in file.readlines():
            lists.append(slow.encode(f"[CLS] {line.strip()} [SEP]", add_special_tokens=False))
    arrays = [np.uint16(ids) for ids in lists]
    random.shuffle(arrays)
    with open(out, "wb") as file:
        pickle.dump(arrays, file, protocol=pickle.HIGHEST_PROTOCOL)
    return sum(map(len, lists)) / (time.perf_counter() - began)


def our_way(text: Path, tokenizer: object, prefix: Path, workers: int) -> float:
    """Tokens a second."""
    began = time.perf_counter()
    made = binarize([Source(str(text))], tokenizer, prefix, workers=workers, overwrite=True, progress=False)
    return made.tokens / (time.perf_counter() - began)


def same_ids(prefix: Path, pickled: Path, lines: list[str]) -> float:
    """Share of the public way's sequences that our store has too, as far as it has them whole."""
    with open(pickled, "rb") as file:
        theirs = pickle.load(file)  # noqa: S301 - written a moment ago
    opened = Store.open(prefix)
    ours = {opened.sequence(number).tobytes() for number in range(len(opened) // REPEATS)}
    return sum(ids.astype(np.int64).tobytes() in ours for ids in theirs) / len(lines)


def inside_a_worker(text: Path, tokenizer: object) -> list[str]:
    """Where the time of one worker goes that meets the text for the first time, on one thread."""
    pieces = list(Source(str(text)).pieces())[:PIECES]
    texts = [text for piece in pieces for document in piece.documents() for text in document]
    words = list(dict.fromkeys(word for text in texts for word in text.split(" ")))
    cutter = Cutter.of(tokenizer, 512, 12, 0.0)

    def library(encoder: Encoder) -> None:
        for start in range(0, len(texts), TEXTS):
            encoder.backend.encode_batch_fast(texts[start : start + TEXTS], add_special_tokens=False)

    def documents(encoder: Encoder) -> None:
        sum(len(document) for piece in pieces for document in piece.documents())

    def cut(encoder: Encoder) -> None:
        for piece in pieces:
            cutter.cut(piece, encoder)

    def asked(encoder: Encoder) -> None:
        for word in words:
            encoder.backend.encode(word, add_special_tokens=False)

    spent = {step: _seconds(step, cutter) for step in (library, documents, cut, asked)}
    shown = {
        "all of it": spent[cut],
        f"the tokenizer itself, at most: asked for {len(words):,} words whole": spent[asked],
        "reading documents": spent[documents],
        "the rest, at least: looking words up, cutting, filters, arrays": spent[cut] - spent[asked] - spent[documents],
        "to compare: the tokenizer alone, given whole texts": spent[library],
    }
    rows = [[name, f"{seconds:.2f}", f"{seconds / spent[cut]:.0%}"] for name, seconds in shown.items()]
    return table(f"one worker, {PIECES} pieces of the text | seconds | share", rows)


def _seconds(step: Callable[[Encoder], None], cutter: Cutter) -> float:
    """Median over TURNS, each with an encoder that has met no word yet."""
    taken = []
    for _ in range(TURNS):
        encoder = cutter.encoder()
        began = time.perf_counter()
        step(encoder)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)
