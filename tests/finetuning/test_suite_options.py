"""What a suite is asked for: shares that make a whole, the numbers of each run, and refusals in a line."""

from __future__ import annotations

import itertools

import pytest

from distil.errors import ConfigError
from distil.finetuning.options import DIRECT as OF_DIRECT
from distil.finetuning.options import PLAIN, SECOND
from distil.finetuning.suite_options import Suite, suite_of
from distil.tasks.catalogue import GLUE


def suite(**given: object) -> Suite:
    return suite_of({"model": "m", "teacher": "t"} | given)


def test_without_anything_else_it_is_the_papers_table():
    asked = suite()
    assert tuple(task.name for task in asked.tasks) == GLUE
    assert asked.seeds == (1, 2, 3, 4, 5) and asked.labels == ("teacher", "student") and asked.cross
    assert suite(teacher=None).labels == ("student",)


@pytest.mark.parametrize("count", range(1, 50))
def test_shares_hold_each_pair_once_and_are_even(count):
    shares = [suite(only=f"{number}/{count}").share() for number in range(count)]
    pairs = list(itertools.chain(*shares))
    assert sorted(pairs) == sorted((name, seed) for name in GLUE for seed in range(1, 6))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_the_large_tasks_are_spread_over_the_nine_elements():
    for name in ("mnli", "qqp"):
        of_task = [sum(task == name for task, _ in suite(only=f"{k}/9").share()) for k in range(9)]
        assert max(of_task) == 1


def test_names_of_tasks_as_the_catalogue_finds_them():
    assert [task.name for task in suite(tasks="SST-2, imdb").tasks] == ["sst2", "imdb"]
    assert [task.name for task in suite(tasks="squad,GLUE").tasks] == ["squad", *GLUE]


def test_each_way_is_the_run_that_finetune_would_make(tmp_path):
    asked = suite(
        ways="direct,plain,second", seeds=2, seed=7, output_dir=str(tmp_path / "out"), lr=1e-4, student_depth=3
    )  # fmt: skip
    assert asked.labels == ("teacher", "student", "second", "direct") and asked.seeds == (7, 8)
    task = asked.tasks[1]
    fitted = str(tmp_path / "out" / "sst2" / "teacher-seed8" / "model")
    models = {"teacher": ("t", ""), "student": ("m", ""), "second": ("m", fitted), "direct": ("", fitted)}
    weights = {"teacher": PLAIN, "student": PLAIN, "second": SECOND, "direct": OF_DIRECT}
    for label in asked.labels:
        numbers = asked.numbers(task, label, 8)
        assert (numbers.start.model, numbers.start.teacher) == models[label]
        assert {name: getattr(numbers.loss, name) for name in PLAIN} == weights[label]
        assert (numbers.source.task, numbers.optimizer.seed, numbers.optimizer.lr) == ("sst2", 8, 1e-4)
        assert numbers.start.student_depth == (3 if label == "direct" else 0)


def test_weights_are_those_of_the_ways_with_a_teacher():
    asked = suite(ways="plain,second", alpha_ce=0.9, temperature=4.0)
    task = asked.tasks[0]
    assert asked.numbers(task, "student", 1).loss.alpha_ce == 0
    loss = asked.numbers(task, "second", 1).loss
    assert (loss.alpha_ce, loss.temperature) == (0.9, 4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": None}, "give --model DIR_OR_NAME"),
        ({"tasks": "cola,ssst2"}, "did you mean sst2?"),
        ({"tasks": "cola,glue"}, "cola is there twice"),
        ({"tasks": "cola,,rte"}, "a name is empty"),
        ({"ways": "plain,secnd"}, "did you mean second?"),
        ({"ways": "second", "teacher": None}, "needs a teacher"),
        ({"seeds": 0}, "seeds is 0; it must be above 0"),
        ({"seed": -1}, "seed is -1"),
        ({"only": "9/9"}, "only is 9/9; it must be K/N"),
        ({"only": "1"}, "it must be K/N"),
        ({"only": "-1/9"}, "it must be K/N"),
        ({"only": "0/0"}, "it must be K/N"),
        ({"alpha_ce": 0.5}, "alpha_ce is for runs with a teacher"),
        ({"student_depth": 3}, "student_depth is for a student cut from the teacher"),
        ({"batch_size": 9}, "contradictory batch numbers"),
        ({"ways": "direct", "alpha_ce": 0.0, "alpha_task": 0.0}, "nothing trains the head"),
        ({"output_dir": "README.md/x"}, "README.md is a file"),
    ],
)
def test_a_mistake_is_refused_in_a_line(given, said):
    with pytest.raises(ConfigError) as caught:
        suite(**given)
    assert said in str(caught.value) and "\n" not in str(caught.value)
