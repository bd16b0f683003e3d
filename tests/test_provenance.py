"""How the runs of an ablation were made, and a warning where two that are compared were not made alike."""

from __future__ import annotations

import pytest

from distil.provenance import unlike

HOW = {"precision": "fp32", "ranks": 1, "device": "a processor", "machine": "a processor, 2 cores", "git": "one"}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"precision": "bf16"}, "precision bf16 against fp32"),
        ({"ranks": 2}, "ranks 2 against 1"),
        ({"device": "a GPU"}, "device a GPU against a processor"),
        ({"precision": "fp16", "ranks": 8}, "precision fp16 against fp32, ranks 8 against 1"),
    ],
)
def test_a_pair_that_differs_is_told_in_one_line(changed, said):
    made = {"full-seed7": HOW, "without-ce-seed7": HOW | changed, "full-seed8": HOW, "without-ce-seed8": HOW}
    runs = [(name, seed) for name in ("full", "without-ce") for seed in (7, 8)]
    assert unlike(runs, made) == [
        f"warning: runs that are compared are not made alike: without-ce, seed 7: {said} of the whole recipe"
    ]


@pytest.mark.parametrize("other", [HOW, HOW | {"git": "two", "machine": "a processor, 1 core"}, {}])
def test_what_decides_nothing_or_is_not_known_is_no_warning(other):
    assert unlike([("full", 7), ("without-ce", 7)], {"full-seed7": HOW, "without-ce-seed7": other}) == []


def test_seeds_that_were_made_otherwise_as_a_whole_compare():
    made = {f"{name}-seed{seed}": HOW | {"ranks": seed} for name in ("full", "without-ce") for seed in (7, 8)}
    assert unlike([("full", 7), ("full", 8), ("without-ce", 7), ("without-ce", 8)], made) == []
