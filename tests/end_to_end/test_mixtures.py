"""A mixture as a user asks for it: by pattern, with an exponent."""

from __future__ import annotations

from harness import must_pretrain


def test_stores_by_pattern_in_smoothed_shares(material):
    # An exponent of 0 gives the two stores equal shares, which their sizes do not.
    options = ("--store", material.store.parent / "[os]t*", "--sampling_exponent", 0, "--dry_run")
    out = must_pretrain(None, "--recipe", material.recipe, *options)
    lines = out.splitlines()
    first = next(i for i, line in enumerate(lines) if line.lstrip().startswith("text "))
    of_other, of_store = lines[first : first + 2]  # a line each, under one another
    assert of_store.startswith(" " * 18)
    assert f"in {material.other}, " in of_other and f"in {material.store}, " in of_store  # the held-out one is none
    assert all(", 50.0% of the micro-batches, " in part for part in (of_other, of_store))
