"""Binarises as launch/binarize.py does, in pieces of some kilobytes, and waits at a given one, to be killed there."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from distil import errors
from distil.data import binarize, draft, pieces, sources


def pause(prefix: str, after: int, noted: bool) -> None:
    """Wait at journal entry number ``after``, when it has been written (``noted``) or when it is about to be.

    A file PREFIX.paused says that it waits, a file PREFIX.go that it may go on.
    """
    real, calls = draft.Draft.write_journal, 0

    def write_journal(self: draft.Draft, journal: dict[str, object]) -> None:
        nonlocal calls
        calls += 1
        if noted or calls != after:
            real(self, journal)
        if calls == after:
            Path(f"{prefix}.paused").touch()
            while not Path(f"{prefix}.go").exists():
                time.sleep(0.01)
            if not noted:
                real(self, journal)

    draft.Draft.write_journal = write_journal


def main() -> None:
    """Options are JSON: ``text``, ``prefix``, ``piece`` bytes, ``pause``, ``noted``, and those of ``binarize``."""
    from letters import tokenizer_of_letters  # not at the top: workers import this file, and need no transformers

    options = json.loads(sys.argv[1])
    pieces.PIECE_BYTES, binarize.JOURNAL_SECONDS = options.pop("piece"), options.pop("journal")
    text, prefix = options.pop("text"), options.pop("prefix")
    pause(prefix, options.pop("pause", 0), options.pop("noted", True))
    binarize.binarize(sources.files(text), tokenizer_of_letters(), prefix, progress=False, **options)


if __name__ == "__main__":
    sys.exit(errors.run(main))
