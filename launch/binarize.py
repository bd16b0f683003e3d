"""Tokenise text into a memory-mapped token store, once, before training."""

from __future__ import annotations

import argparse
import sys

from distil import errors, options


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line. Raises ConfigError."""
    parser = options.Parser(description=__doc__, allow_abbrev=False, formatter_class=options.Formatter)
    source = parser.add_argument_group("input, one of --text and --dataset")
    one = source.add_mutually_exclusive_group(required=True)
    one.add_argument("--text", nargs="+", metavar="FILE", help="UTF-8 text, a sequence a line; or .jsonl, .parquet")
    one.add_argument("--dataset", metavar="NAME", help="name of a dataset on the hub, streamed")
    source.add_argument("--dataset_config", metavar="C", help="its configuration, where it has several")
    source.add_argument("--split", default="train", help="its split")
    source.add_argument("--text_field", default="text", help="column with the text, in rows of .jsonl and the like")
    tokens = parser.add_argument_group("tokenization")
    tokens.add_argument("--tokenizer", required=True, metavar="NAME_OR_DIR", help="folder, or name on the hub")
    tokens.add_argument("--max_length", type=int, default=512, help="longest sequence in tokens; longer ones are cut")
    output = parser.add_argument_group("output")
    output.add_argument("--out", required=True, metavar="PREFIX", help="path of the store, without extension")
    output.add_argument("--heldout_fraction", type=float, default=0.0, help="share of texts kept in PREFIX-heldout")
    output.add_argument("--overwrite", action="store_true", help="replace a store that exists")
    return parser.parse_args(arguments)


def main() -> None:
    """Build the store and print what went into it."""
    chosen = parse()
    from distil.data.binarize import binarize, read_dataset, read_text
    from distil.data.tokenizer import load_tokenizer

    if chosen.text:
        texts = read_text(chosen.text, chosen.text_field)
    else:
        texts = read_dataset(chosen.dataset, chosen.dataset_config, chosen.split, chosen.text_field)
    report = binarize(
        texts,
        load_tokenizer(chosen.tokenizer),
        chosen.out,
        max_length=chosen.max_length,
        heldout_fraction=chosen.heldout_fraction,
        overwrite=chosen.overwrite,
    )
    print(f"{chosen.out}: done\n{report}")


if __name__ == "__main__":
    sys.exit(errors.run(main))
