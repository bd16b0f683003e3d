"""Binarises as launch/binarize.py does, in pieces of some kilobytes and with a journal after each, to be killed."""

from __future__ import annotations

import json
import sys

from distil import errors
from distil.data import binarize, pieces, sources


def main() -> None:
    """Options are JSON: ``text``, ``prefix``, ``piece`` bytes, and those of ``binarize``."""
    from letters import tokenizer_of_letters  # not at the top: workers import this file, and need no transformers

    options = json.loads(sys.argv[1])
    pieces.PIECE_BYTES = options.pop("piece")
    binarize.JOURNAL_SECONDS = options.pop("journal")
    text, prefix = options.pop("text"), options.pop("prefix")
    binarize.binarize(sources.files(text), tokenizer_of_letters(), prefix, progress=False, **options)


if __name__ == "__main__":
    sys.exit(errors.run(main))
