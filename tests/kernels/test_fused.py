"""The fused paths against float64 truth and against the eager definition in the same precision; fp16; chunks."""

from __future__ import annotations

import math

import pytest
import torch
from emulated import emulated_kernels
from losses import Precise, check, errors

from distil.kernels import TERMS, Head, build, fused, paths, triple_loss
from distil.kernels.paths import using
from distil.kernels.rows import TorchKernels

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SMALL = [(1, 2), (7, 2), (1000, 2), (1, 8191), (7, 8191), (1, 30_522), (7, 30_522), (1, 119_547), (7, 119_547)]
LARGE = [(1000, 8191), (1000, 30_522), (1000, 119_547)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("path", ["torch", "kernel"])
@pytest.mark.parametrize("t", [1.0, 2.0, 4.0])
@pytest.mark.parametrize(("rows", "vocabulary"), SMALL)
def test_small_shapes(rows, vocabulary, t, path, dtype):
    check(Precise(rows, vocabulary, dtype), path, temperature=t)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("t", [1.0, 2.0, 4.0])
@pytest.mark.parametrize(("rows", "vocabulary"), [(1, 2), (7, 2), (3, 8191), (1, 30_522)])
@pytest.mark.parametrize("shared_bytes", [0, 99 * 1024, 227 * 1024], ids=["twice read", "sm_70", "sm_90"])
def test_the_gpu_source(rows, vocabulary, t, dtype, shared_bytes):
    check(Precise(rows, vocabulary, dtype), emulated_kernels(shared_bytes=shared_bytes), temperature=t)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("rows", "vocabulary"), LARGE)
def test_large_shapes(rows, vocabulary, dtype):
    check(Precise(rows, vocabulary, dtype), "kernel", temperature=2.0)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("t", [1.0, 4.0])
@pytest.mark.parametrize("path", ["torch", "kernel"])
def test_a_thousand_rows_at_other_temperatures(path, t, dtype):
    check(Precise(1000, 8191, dtype), path, temperature=t)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("path", ["torch", "kernel", "emulated GPU"])
@pytest.mark.parametrize(
    "change",
    [
        {"masked": 0.0}, {"masked": 1.0}, {"size": 2000.0}, {"ties": True}, {"upstream": 0.37}, {"upstream": 2.0**15},
        {"clm": True}, {"mse": True}, {"clm": True, "restrict": True}, {"restrict": True}, {"bias": False},
        {"width": 5}, {"everything_ignored": True},
    ],
    ids=str,
)  # fmt: skip
def test_cases(change, path, dtype):
    if change.get("upstream") == 2.0**15 and dtype == torch.float16:
        change = {"upstream": 2.0**9}  # the largest power of two at which these gradients stay in fp16
    s = Precise(7, 301, dtype, **change)
    check(s, emulated_kernels() if path == "emulated GPU" else path, chunk_rows=4, temperature=2.0)


def test_logits_of_ten_thousand_were_among_the_cases():
    assert 1e4 < Precise(7, 301, torch.float32, size=2000.0).of_logits() < 65504


# --- fp16 ----------------------------------------------------------------------------------------------------------


class OneOverCount(TorchKernels):
    """The naive way: the gradient of the mean, formed in fp16 before the loss scale arrives."""

    def loss_rows_(self, student, teacher, labels, following, slopes, bias, with_gradient):
        naive = slopes._replace(**{name: getattr(slopes, name) / self.form for name in ("ce", "mlm", "clm", "mse")})
        values = super().loss_rows_(student, teacher, labels, following, naive, bias, with_gradient)
        student.mul_(self.form)
        return values


@pytest.mark.parametrize("path", ["torch", "kernel", "emulated GPU"])
def test_fp16_gradients_of_a_billionth_survive(path):
    """A mean over 10^6 rows at a loss scale of 2^16: most logits have a gradient of some 1e-9 before the scale."""
    s = Precise(7, 8191, torch.float16, upstream=2.0**16, count=1_000_000)
    logits = s.truth_logits()
    p = (s.tensors["teacher_hidden"].double() @ s.tensors["teacher_weight"].double().T).div(2).softmax(-1)
    median = float((5e-6 * 2 * (logits.div(2).softmax(-1) - p)).abs().median())
    assert 1e-10 < median < 1e-9
    truth = s.truth(temperature=2.0)
    with using(emulated_kernels() if path == "emulated GPU" else path, 4):
        found = s.run(temperature=2.0)
    naive_kernels = OneOverCount()
    naive_kernels.form = fused._form(torch.float16, 2.0, ce=5e-6, mlm=2e-6, clm=0.0, mse=0.0)
    with using(naive_kernels, 4):
        naive = s.run(temperature=2.0)
    for is_, lost, wanted in zip(found[1:], naive[1:], truth[1:], strict=True):
        relative = errors(is_, wanted)[1] / math.sqrt(float(wanted.square().mean()))
        assert relative < 2**-9  # fp16 rounds by 2^-11; logits, gradients and products each once
        assert errors(lost, wanted)[1] > 20 * errors(is_, wanted)[1]


def test_fp16_products_may_leave_its_range_before_the_true_factor_arrives():
    """With 10^5 rows that pull one way a sum form of 2^10 has products far above 65504."""
    rows = 2000
    hidden = torch.ones(rows, 4, dtype=torch.float16, requires_grad=True)
    weight = torch.zeros(3, 4, dtype=torch.float16, requires_grad=True)
    head, labels = Head(torch.nn.Identity(), weight, None), torch.zeros(rows, dtype=torch.int64)
    for path in ("torch", "kernel"):
        with using(path):
            loss = triple_loss(
                hidden, head, None, None, labels, attended_count=rows, masked_count=rows, temperature=1.0, alpha_mlm=1.0
            ).total
        (gradient,) = torch.autograd.grad(loss, weight)
        # 1/3 - 1 for the label, 1/3 for the others: three roundings of fp16.
        wanted = torch.tensor([-2 / 3, 1 / 3, 1 / 3]).repeat_interleave(4).view(3, 4)
        torch.testing.assert_close(gradient.float(), wanted, rtol=3 * 2**-11, atol=0)


# --- exactness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["torch", "kernel", "emulated GPU"])
@pytest.mark.parametrize("options", [{}, {"clm": True, "mse": True}, {"restrict": True}], ids=str)
def test_gradcheck(path, options):
    s = Precise(3, 11, torch.float64, **options)
    with using(emulated_kernels() if path == "emulated GPU" else path, 2):
        leaves = s.leaves(torch.float64)
        assert torch.autograd.gradcheck(lambda *tensors: s.loss(tensors, temperature=2.0).total, leaves)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("path", ["torch", "kernel", "emulated GPU"])
def test_the_same_twice(path, dtype):
    s = Precise(40, 1001, dtype)
    with using(emulated_kernels() if path == "emulated GPU" else path, 16):
        one, other = s.run(temperature=2.0), s.run(temperature=2.0)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("t", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("path", ["torch", "kernel", "emulated GPU"])
def test_a_teacher_that_is_the_student_has_no_divergence_and_no_gradient(path, t, dtype):
    s = Precise(7, 8191, dtype)
    s.weights = {"alpha_ce": 5.0}
    for name in ("hidden", "weight", "bias"):
        s.tensors[f"teacher_{name}"] = s.tensors[name]
    with using(emulated_kernels() if path == "emulated GPU" else path, 4):
        found = s.run(temperature=t)
    assert found.terms[TERMS.index("ce")] == 0.0
    assert not found.hidden.any() and not found.weight.any() and not found.bias.any()


def test_chunks_change_the_rounding_of_sums_alone():
    s = Precise(40, 1001, torch.float32)
    outcomes = []
    for chunk_rows in (1, 7, 40, None):
        with using("kernel", chunk_rows):
            outcomes.append(s.run(temperature=2.0))
    for other in outcomes[1:]:
        # A row's gradient is of its own logits; products of other shapes sum in another order, on some CPUs strictly
        # one after the other: of 1,001 addends each order rounds by some sqrt(1001) = 32 units of the largest.
        for name in ("hidden", "weight", "bias"):
            one, first = getattr(other, name), getattr(outcomes[0], name)
            assert float((one - first).abs().max()) <= 2 * 32 * 2**-24 * float(first.abs().max())


def test_no_more_than_a_chunk_of_logits_is_made():
    made = []

    class Watching(TorchKernels):
        def empty(self, shape, like):
            made.append(tuple(shape))
            return super().empty(shape, like)

    s = Precise(40, 1001, torch.float32)
    for chunk_rows, rows in ((16, 16), (10**9, 40)):
        made.clear()
        with using(Watching(), chunk_rows):
            s.run(temperature=2.0)
        assert sorted(made) == [(rows, 1001), (rows, 1001), (1001, 16)]


def test_a_loss_can_go_back_twice_where_the_graph_is_kept():
    s = Precise(7, 301, torch.bfloat16)
    with using("kernel", 4):
        leaves = s.leaves()
        total = s.loss(leaves, temperature=2.0).total
        first = torch.autograd.grad(total, leaves, retain_graph=True)
        again = torch.autograd.grad(total, leaves)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("path", ["torch", "kernel", "emulated GPU"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_factor_from_above_is_not_rounded_to_the_type(dtype, path):
    """0.37 is 0.3691 in bf16: gradients would all be a quarter percent too small."""
    with using(emulated_kernels() if path == "emulated GPU" else path):
        one, other = Precise(7, 301, dtype), Precise(7, 301, dtype, upstream=0.37)
        plain, times = one.run(temperature=2.0).weight.double(), other.run(temperature=2.0).weight.double()
    # Single numbers are rounded to the type, at random: over five thousand of them that all but cancels, to 2e-4 in
    # bf16, where a rounded factor would be off by 2.3e-3.
    factor = float((plain * times).sum() / (plain * plain).sum())
    assert abs(factor / 0.37 - 1) < 1e-3


@pytest.mark.parametrize("path", ["torch", "kernel", "emulated GPU"])
def test_without_grad_there_is_no_gradient_to_pay_for(path, monkeypatch):
    kernels = emulated_kernels() if path == "emulated GPU" else paths.path_for(torch.device("cpu")).kernels
    kernels = TorchKernels() if path == "torch" else kernels
    asked, loss_rows_ = [], kernels.loss_rows_
    monkeypatch.setattr(kernels, "loss_rows_", lambda *a: asked.append(a[-1]) or loss_rows_(*a), raising=False)
    s = Precise(7, 301, torch.float32)
    with using(kernels, 4):
        trained = s.loss(s.leaves(), temperature=2.0)
        with torch.no_grad():
            found = s.loss(s.leaves(), temperature=2.0)
    assert asked == [True, True, False, False] and torch.equal(found.terms, trained.terms)


@pytest.mark.parametrize("path", ["torch", "kernel"])
def test_the_weight_is_not_read_in_the_backward_pass(path):
    """ZeRO-3 gathers it for the forward pass and takes it away again."""
    s = Precise(7, 301, torch.float32)
    with using(path, 4):
        wanted = s.run(temperature=2.0)
        leaves = s.leaves()
        total = s.loss(leaves, temperature=2.0).total
        kept = [leaf.data for leaf in leaves]
        leaves[1].data = torch.full_like(kept[1], torch.nan)
        hidden, weight, bias = torch.autograd.grad(total, leaves)
    assert torch.equal(hidden, wanted.hidden) and torch.equal(weight, wanted.weight) and torch.equal(bias, wanted.bias)


@pytest.mark.parametrize("path", ["torch", "kernel", "emulated GPU"])
def test_no_rows_at_all(path):
    s = Precise(7, 301, torch.float32)
    with using(emulated_kernels() if path == "emulated GPU" else path):
        leaves = s.leaves()
        found = s.loss(leaves, slice(0, 0), temperature=2.0)
        gradients = torch.autograd.grad(found.total, leaves)
    assert found.total == 0 and not found.terms.any() and not any(gradient.any() for gradient in gradients)


def test_hidden_states_whose_norms_multiply_beyond_fp32():
    for path in ("reference", "torch", "kernel", emulated_kernels()):
        s = Precise(5, 31, torch.float32)
        plain = s.tensors["hidden"]
        with using(path):
            cosine = s.run(temperature=2.0).terms[TERMS.index("cos")]
            s.tensors |= {"hidden": plain * 2.0**40, "teacher_hidden": s.tensors["teacher_hidden"] * 2.0**40}
            s.weights = {"alpha_cos": 1.0}
            found = s.run(temperature=2.0).terms[TERMS.index("cos")]
        torch.testing.assert_close(found, cosine, rtol=1e-5, atol=0)  # powers of two: but for square roots the same


def test_frozen_parts_have_no_gradient_and_change_nothing_else():
    s = Precise(7, 301, torch.float32)
    with using("kernel", 4):
        whole = s.run(temperature=2.0)
        leaves = s.leaves()
        leaves[1].requires_grad_(False)
        (hidden, bias) = torch.autograd.grad(s.loss(leaves, temperature=2.0).total, (leaves[0], leaves[2]))
    assert torch.equal(hidden, whole.hidden) and torch.equal(bias, whole.bias)


@pytest.mark.parametrize("path", ["torch", "kernel", "emulated GPU"])
def test_a_tied_weight_gets_both_gradients(path):
    """As in a language model: the hidden rows come from the embedding that is the head's weight."""
    draw = torch.Generator().manual_seed(0)
    ids, teacher = torch.randint(50, (9,), generator=draw), torch.randn(9, 16, generator=draw)
    start = torch.randn(50, 16, generator=draw)
    gradients = []
    for which in ("reference", emulated_kernels() if path == "emulated GPU" else path):
        table = start.clone().requires_grad_()
        head, soft = Head(torch.tanh, table, None), Head(torch.tanh, start.flip(0), None)
        with using(which, 4):
            loss = triple_loss(
                torch.nn.functional.embedding(ids, table), head, teacher, soft, ids, attended_count=9, masked_count=9,
                temperature=2.0, alpha_ce=5.0, alpha_mlm=2.0, alpha_cos=1.0,
            ).total  # fmt: skip
        gradients += torch.autograd.grad(loss, table)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)  # some ten roundings of fp32


@pytest.mark.parametrize(("student", "teacher"), [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32)])
def test_student_and_teacher_of_two_types(student, teacher):
    s = Precise(7, 301, student)
    for name in ("hidden", "weight", "bias"):
        s.tensors[f"teacher_{name}"] = s.tensors[f"teacher_{name}"].to(teacher)
    for path in ("torch", "kernel", emulated_kernels()):
        check(s, path, 4, temperature=2.0)


def test_autocast_is_that_type():
    s = Precise(7, 301, torch.float32)
    plain = Precise(7, 301, torch.float32)
    for name, tensor in plain.tensors.items():
        if tensor.is_floating_point():
            plain.tensors[name] = tensor.bfloat16()
    with using("kernel", 4):
        with torch.autocast("cpu", torch.bfloat16):
            found = s.run(temperature=2.0)
        wanted = plain.run(temperature=2.0)
    assert found.weight.dtype == torch.float32
    soft = [i for i, name in enumerate(TERMS) if name != "cos"]  # hidden states themselves are not cast
    assert torch.equal(found.terms[soft], wanted.terms[soft])
    assert torch.equal(found.weight, wanted.weight.float())


@pytest.mark.parametrize("path", ["reference", "torch", "kernel", "emulated GPU"])
@pytest.mark.parametrize("where", ["hidden", "teacher_hidden"])
def test_a_nan_is_told(path, where):
    s = Precise(7, 301, torch.float32)
    s.tensors[where][2, 1] = torch.nan
    with using(emulated_kernels() if path == "emulated GPU" else path, 4):
        assert s.run(temperature=2.0).terms[TERMS.index("ce")].isnan()


@pytest.mark.parametrize("path", ["reference", "torch", "kernel", "emulated GPU"])
def test_tensors_that_are_not_contiguous(path):
    s = Precise(8, 301, torch.float32)
    with using(emulated_kernels() if path == "emulated GPU" else path, 4):
        wanted = s.run(temperature=2.0)
        for name, tensor in s.tensors.items():
            wide = torch.stack((tensor, tensor + 1), dim=-1)
            s.tensors[name] = wide[..., 0]
            assert not s.tensors[name].is_contiguous()
        found = s.run(temperature=2.0)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_the_path_in_use_is_the_kernels_where_there_is_a_compiler():
    assert paths.path_for(torch.device("cpu")).name == "kernel"
