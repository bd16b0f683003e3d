"""Stores made on the spot, with any vocabulary, and what damages them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from distil.data.draft import Draft
from distil.data.masking import Masker
from distil.data.mixture import Mixture
from distil.data.store import Store
from distil.data.store_meta import Origin
from distil.data.store_writer import StoreWriter

FILES = (".bin", ".idx", ".order", ".counts.npy", ".json")
SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
SMALL, LARGE = 300, 119_547  # uint16, and the multilingual vocabulary that needs int32


def origin(vocab_size: int = SMALL, max_length: int = 128, name: str = "toy", fingerprint: str = "f" * 64) -> Origin:
    """What a store says it is made of."""
    return Origin({"name": name, "fingerprint": fingerprint}, SPECIAL, vocab_size, max_length)


def append(writer: StoreWriter, sequences: Sequence[Sequence[int] | np.ndarray]) -> None:
    """Append sequences given one by one."""
    writer.append(np.concatenate(sequences).astype(np.int64), np.array(list(map(len, sequences)), dtype=np.int32))


def build(
    prefix: Path,
    sequences: Sequence[Sequence[int] | np.ndarray],
    made_of: Origin | None = None,
    overwrite: bool = False,
) -> Store:
    """A store of these sequences of ids."""
    with Draft({"store": str(prefix)}, overwrite) as draft:
        writer = StoreWriter(draft, "store", made_of or origin())
        try:
            append(writer, sequences)
            writer.seal()
        finally:
            writer.close()
        draft.publish()
    return Store.open(prefix)


def toy(count: int = 20, vocab_size: int = SMALL) -> list[np.ndarray]:
    """Random sequences, the same for the same count."""
    draw = np.random.default_rng(count)
    return [draw.integers(0, vocab_size, draw.integers(1, 65)) for _ in range(count)]


def texts(count: int, longest: int = 30, seed: int = 0) -> list[np.ndarray]:
    """Random sequences in [CLS] and [SEP], of ordinary ids."""
    draw = np.random.default_rng(seed)
    return [np.r_[2, draw.integers(5, SMALL, draw.integers(3, longest - 1)), 3] for _ in range(count)]


def masker_of(mixture: Mixture, fraction: float = 0.15) -> Masker:
    """A masker by the mixture's counts."""
    shares = {"fraction": fraction, "smoothing": 0.7, "mask_share": 0.8, "keep_share": 0.1}
    return Masker.from_counts(mixture.token_counts, SPECIAL, **shares)


def contents(prefix: Path | str) -> dict[str, bytes]:
    """The bytes of all files of a store."""
    return {suffix: Path(f"{prefix}{suffix}").read_bytes() for suffix in FILES}


def flip(path: Path | str, at: int, bits: int = 1) -> None:
    """Flip bits of one byte of a file."""
    raw = bytearray(Path(path).read_bytes())
    raw[at] ^= bits
    Path(path).write_bytes(raw)


def killed(job: Callable[[], object], after: int) -> bool:
    """Do a job in a forked process that SIGKILL ends before its step ``after``; whether it was killed, or else done.

    Steps are what changes or opens a file, and waits for the disk; an error of the job's is one of the test.
    """
    steps = {"open", "os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.truncate", "os.scandir", "fcntl.flock"}
    if (process := os.fork()) == 0:
        done = 0

        def step(event: str, _: tuple[object, ...]) -> None:
            nonlocal done
            if event in steps:
                if done == after:
                    os.kill(os.getpid(), signal.SIGKILL)
                done += 1

        def fsync(file: int, real: Callable[[int], None] = os.fsync) -> None:  # the one without an audit event
            step("open", ())
            real(file)

        os.fsync = fsync
        sys.addaudithook(step)
        code = 1
        try:
            job()
            code = 0
        finally:
            os._exit(code)
    status = os.waitpid(process, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status == signal.SIGKILL
