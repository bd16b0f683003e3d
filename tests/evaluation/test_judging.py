"""What a model says of a split: by batches of like lengths, in any hands, the same as one sequence after the other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from harness import make_teacher
from sets import reviews, write_csv, write_squad

from distil.data.tokenizer import load_tokenizer
from distil.evaluation.judging import Split, agreement, logits_of, predictions_of
from distil.models.packed import use_packed_attention
from distil.models.task_heads import run, task_inputs
from distil.models.task_loading import load_task_model
from distil.tasks.batch import TaskBatch
from distil.tasks.catalogue import find
from distil.tasks.order import evaluation_batches
from distil.tasks.reading import local_task, read
from distil.tasks.spans import answers
from distil.tasks.task import REGRESSION

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_teacher(tmp_path_factory.mktemp("judged") / "bert")


def made(task, model, **where):
    """A split of a task, and the forward of a model whose head for it is random."""
    task = replace(task, max_length=24, stride=4)
    network, family, _ = load_task_model(str(model), task, torch.float32, 1)
    use_packed_attention(network.eval())

    @torch.no_grad()
    def forward(batch: TaskBatch) -> torch.Tensor:
        return run(network, family, task.kind, task_inputs(batch))[0]

    split = Split.of(task, "validation", read(task, "validation", **where), load_tokenizer(str(model)))
    return task, split, forward


def by_one(split, forward) -> list[np.ndarray]:
    """Logits of each sequence alone."""
    return [forward(TaskBatch.of(split.features, [number])).numpy() for number in range(len(split.features))]


def by_batches(split, forward) -> dict[int, np.ndarray]:
    return logits_of(split, forward, CPU, ((number, True) for number in range(len(split.batches))))


def test_classes_do_not_depend_on_who_shares_a_batch(model, tmp_path):
    """A logit is a sum over its own sequence, in an order that may follow the batch's size: 2^-16 of the largest."""
    path = str(write_csv(tmp_path / "a.csv", reviews(60, 1)))
    task, split, forward = made(
        local_task({"train": path}, ("text",), "label"), model, files={"validation": path}
    )  # fmt: skip
    rows = np.concatenate(by_one(split, forward))
    small = replace(split, batches=evaluation_batches(split.features, 40))
    assert len(split.batches) == 1 < len(small.batches)
    for one in (split, small):
        logits = by_batches(one, forward)
        for number, sequences in enumerate(one.batches):
            assert np.abs(logits[number] - rows[sequences]).max() <= 2**-16 * np.abs(rows).max()
        assert (predictions_of(task, one, logits) == rows.argmax(1)).all()


def test_values_are_the_outputs_themselves(model, tmp_path):
    path = write_csv(tmp_path / "a.csv", [(text, str(len(text))) for text, _ in reviews(30, 2)])
    task, split, forward = made(
        local_task({}, ("text",), "label", regression=True), model, files={"validation": str(path)}
    )  # fmt: skip
    assert task.kind == REGRESSION
    found = predictions_of(task, split, by_batches(split, forward))
    alone = np.concatenate(by_one(split, forward))[:, 0]
    assert found == pytest.approx(alone, rel=1e-4)


def test_answers_come_from_the_windows_of_their_own_question(model, tmp_path):
    write_squad(tmp_path / "dev-v1.1.json", 25, 3)
    task, split, forward = made(find("squad"), model, data=str(tmp_path))
    assert len(split.features) > len(split.examples) == 25
    tokens = np.concatenate(by_one(split, forward))
    wanted = answers(split.features, split.examples, tokens[:, 0], tokens[:, 1])
    small = replace(split, batches=evaluation_batches(split.features, 100))
    assert len(small.batches) > 1
    assert predictions_of(task, small, by_batches(small, forward)) == wanted
    assert all(answer in context for answer, context in zip(wanted, split.examples.texts[1], strict=True))


def test_only_what_counts_is_kept_and_every_batch_is_told(model, tmp_path):
    path = str(write_csv(tmp_path / "a.csv", reviews(20, 1)))
    _, split, forward = made(
        local_task({"train": path}, ("text",), "label"), model, files={"validation": path}
    )  # fmt: skip
    split, told = replace(split, batches=evaluation_batches(split.features, 30)), []
    found = logits_of(split, forward, CPU, [(0, True), (2, True), (1, False)], lambda: told.append(1))
    assert sorted(found) == [0, 2] and len(told) == 3


def test_agreement_is_of_examples_and_of_nothing_where_there_are_values():
    task = find("sst2")
    assert agreement(task, np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0])) == 0.75
    assert agreement(find("squad"), ["a", "", "b"], ["a", "", "c"]) == pytest.approx(2 / 3)
    assert agreement(find("stsb"), np.array([1.0]), np.array([1.0])) is None
