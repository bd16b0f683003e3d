"""How runs were made, in words."""

from __future__ import annotations

from distil.made import in_words, seeds_in_words

HOW = {
    "date": "2024-02-01", "machine": "a processor", "ranks": 1, "precision": "fp32", "ds_config": "one.json",
    "torch": "2", "deepspeed": "0.1", "git": "abc",
}  # fmt: skip
WORDS = "a processor; 1 rank(s), fp32, one.json; torch 2, DeepSpeed 0.1, git abc"


def test_runs_that_were_made_alike_but_for_the_day_are_in_one_line():
    made = {("full", 7): HOW, ("full", 8): HOW | {"date": "2024-02-03"}, ("half", 7): HOW, ("half", 8): {"steps": 9}}
    assert in_words(made) == [
        f"- 3 of 4 runs, 2024-02-01 to 2024-02-03: {WORDS}: full, seeds 7, 8; half, seed 7",
        "- 1 of 4 runs: how and when they were made is not recorded: half, seed 8",
    ]


def test_what_is_not_known_of_a_run_is_a_question_mark():
    (line,) = in_words({("full", 1): {"machine": "a processor", "precision": "fp32"}})
    assert line == "- 1 of 1 runs: a processor; ? rank(s), fp32, ?; torch ?, DeepSpeed ?, git ?: full, seed 1"
    assert seeds_in_words([3]) == "seed 3"
