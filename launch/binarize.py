"""Tokenise text into a memory-mapped token store, once, before training; look at stores, check and join them.

binarize.py --text 'data/*.txt' --tokenizer NAME_OR_DIR --out PREFIX       build a store
binarize.py inspect PREFIX        sizes, lengths, tokens, a few sequences as text
binarize.py verify PREFIX ...     every checksum, every id
binarize.py merge PREFIX PREFIX ... --out PREFIX     several stores as one
binarize.py adopt PREFIX --tokenizer NAME_OR_DIR     a .bin/.idx pair of Megatron-LM or GPT-NeoX as a store
binarize.py trim PREFIX --tokenizer NAME_OR_DIR --out DIR     a tokenizer of the ids that the store uses
"""

from __future__ import annotations

import argparse
import os
import sys

from distil import errors, options

COMMANDS = ("inspect", "verify", "merge", "adopt", "trim")  # without one of these a store is built


def _parser(command: str = "") -> options.Parser:
    name = f"{os.path.basename(sys.argv[0])} {command}".strip()
    return options.Parser(prog=name, description=__doc__, allow_abbrev=False, formatter_class=options.Formatter)


def _add_build(parser: argparse.ArgumentParser) -> None:
    source = parser.add_argument_group("input, one of --text and --dataset")
    one = source.add_mutually_exclusive_group(required=True)
    kinds = "files or patterns: UTF-8 text or .jsonl, also as .gz, .zst, .bz2; .json, .parquet"
    one.add_argument("--text", nargs="+", metavar="FILE", help=kinds)
    one.add_argument(
        "--dataset", metavar="NAME", help="a dataset on the hub, NAME or NAME@REVISION, or a folder of one"
    )
    source.add_argument("--dataset_config", metavar="C", help="its configuration, where it has several")
    source.add_argument("--split", default="train", help="its split")
    source.add_argument("--streaming", action="store_true", help="read it as it comes instead of downloading it first")
    source.add_argument("--text_field", default="text", help="column with the text, in rows of .jsonl and the like")
    source.add_argument(
        "--join", choices=("lines", "documents"), default="lines",
        help="lines: each line is a text of its own; documents: the lines of a row, or between blank lines, are one",
    )  # fmt: skip
    tokens = parser.add_argument_group("tokenization")
    tokens.add_argument("--tokenizer", required=True, metavar="NAME_OR_DIR", help="folder, or name on the hub")
    tokens.add_argument("--max_length", type=int, default=512, help="longest sequence in tokens; longer texts are cut")
    tokens.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes; the store is the same for any"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--out", required=True, metavar="PREFIX", help="path of the store, without extension")
    output.add_argument("--heldout_fraction", type=float, default=0.0, help="share of documents in PREFIX-heldout")
    output.add_argument("--overwrite", action="store_true", help="replace a store, or a build left unfinished")


def _add_command(parser: argparse.ArgumentParser, command: str) -> None:
    parser.add_argument("prefixes", nargs="+" if command in ("verify", "merge") else 1, metavar="PREFIX")
    parser.add_argument(
        "--tokenizer", required=command in ("adopt", "trim"), metavar="NAME_OR_DIR",
        help="of a plain .bin/.idx pair, which it makes a store; else the store's own, or another place of it",
    )  # fmt: skip
    if command == "trim":
        parser.add_argument("--min_count", type=int, default=1, help="keep ids that occur so often in the store")
        parser.add_argument("--keep", type=int, metavar="N", help="of these only the N most frequent")
        parser.add_argument("--out", required=True, metavar="DIR", help="folder of the new tokenizer")
    if command == "merge":
        parser.add_argument("--out", required=True, metavar="PREFIX", help="path of the new store, without extension")
    if command in ("merge", "adopt", "trim"):
        parser.add_argument("--overwrite", action="store_true", help="replace what exists")


def main() -> None:
    """Build, or do what the first word says, and print what comes of it."""
    arguments = sys.argv[1:]
    command = arguments.pop(0) if arguments and arguments[0] in COMMANDS else ""
    parser = _parser(command)
    if command:
        _add_command(parser, command)
    else:
        _add_build(parser)
    chosen = parser.parse_args(arguments)
    from distil.data import commands

    for line in commands.COMMANDS[command or "build"](**vars(chosen)):
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(errors.run(main))
