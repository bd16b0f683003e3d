"""Distil a student from its teacher: one recipe, placed by one ds_config.

deepspeed launch/pretrain.py --deepspeed ds_config/zero1.json
python launch/pretrain.py --recipe distilbert-base-uncased --teacher bert-base-uncased --store data/wiki-books
"""

from __future__ import annotations

import sys

from distil import errors, options, placement


def main() -> None:
    """Parse and refuse what can be refused at once; only then load the heavy libraries and run."""
    chosen, recipe = options.parse(sys.argv[1:], __doc__)
    placement.read_ds_config(chosen.deepspeed)

    from distil.pretrain import pretrain

    pretrain(chosen, recipe)


if __name__ == "__main__":
    errors.leave(errors.run(main))
