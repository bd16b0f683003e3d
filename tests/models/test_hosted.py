"""Hosted: compiled layers compute what they did before, for any number of tokens, and are compiled once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_distiller import COUNTS, PAPER
from tiny import VOCAB, student_of, tiny

from distil.data.batch import PackedBatch
from distil.kernels import IGNORED
from distil.models.distiller import Distiller
from distil.models.families import FAMILIES

pytestmark = pytest.mark.usefixtures("one_thread")
LENGTHS = ([5, 9, 3], [7, 7], [4], [30, 11, 2, 2], [13, 1])


def batch(lengths: list[int]) -> PackedBatch:
    draw = np.random.default_rng(sum(lengths))
    ids, labels = draw.integers(5, VOCAB, sum(lengths)), np.full(sum(lengths), IGNORED)
    labels[::4] = ids[::4]
    return PackedBatch.pack(ids, labels, np.array(lengths))


def outcome(module: Distiller, lengths: list[int]) -> list[torch.Tensor]:
    """Loss and gradients."""
    total = module(batch(lengths), COUNTS).total
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [total.detach(), *torch.autograd.grad(total, parameters, allow_unused=True)]


@pytest.mark.parametrize("name", ["distilbert", "gpt2"])  # seconds each
def test_compiled_layers_compute_the_same_and_are_compiled_once(name):
    torch._dynamo.reset()
    teacher = tiny(name).requires_grad_(False)
    family, student = FAMILIES[name], student_of(teacher, name, range(teacher.config.num_hidden_layers)[::2])
    module = Distiller(student.train(), family, teacher, family, PAPER)
    before = [outcome(module, lengths) for lengths in LENGTHS]
    names = list(module.state_dict())
    module.compile_layers("aot_eager")
    assert list(module.state_dict()) == names
    after = [outcome(module, lengths) for lengths in LENGTHS[:3]]  # of padded, equal and single sequences on a CPU
    with torch._dynamo.config.patch(error_on_recompile=True):
        after += [outcome(module, lengths) for lengths in LENGTHS[3:]]
    for mine, theirs in zip(sum(after, []), sum(before, []), strict=True):
        # The same operations, which the tracer may take apart: some roundings of fp32 in sums of hundreds.
        assert (mine is None) == (theirs is None)
        assert mine is None or torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5)
