"""csrc/*.cpp for processors with short, middling and long vectors: the same numbers, up to the end of a row."""

from __future__ import annotations

import math

import pytest
import torch
from processors import flags, within

from distil.kernels import build
from distil.kernels.contract import IGNORED, statistics_dtype
from distil.kernels.rows import Slopes, TorchKernels

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
HALVES = [torch.bfloat16, torch.float16]
SLOPES = Slopes(2.0, ce=5.0, mlm=2.0, clm=1.5, mse=0.01)
TAILS = [*range(1, 71), 127, 128, 129]  # every end that lanes of 4, 8 and 16, four at a time, can have
pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def one_thread():
    """Tensors are tiny here."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Rows:
    """Logits of a student and a teacher of some type with labels of every kind, and what is made of them."""

    def __init__(self, rows: int, vocabulary: int, dtype: torch.dtype, *, size: float = 3.0, teacher=True) -> None:
        draw = torch.Generator().manual_seed(rows * vocabulary)
        self.student = (torch.randn(rows, vocabulary, generator=draw) * size).to(dtype)
        self.teacher = (torch.randn(rows, vocabulary, generator=draw) * size).to(dtype) if teacher else None
        self.labels, self.next = torch.randint(vocabulary, (2, rows), generator=draw)
        self.labels[1::3] = self.next[2::3] = self.next[1::6] = IGNORED  # both, neither or one of the two
        self.next[0] = self.labels[0]  # one token is both
        self.spread = float(self.student.float().max() - self.student.float().min()) + 2 * size

    def through(self, kernels, dtype: torch.dtype, slopes: Slopes, with_gradient=True) -> tuple[torch.Tensor, ...]:
        """Values, gradient and the bias's gradient. Memory just behind the logits must stay as it was."""
        memory = torch.full((self.student.numel() + 64,), 7.0, dtype=dtype)
        student = memory[: self.student.numel()].view_as(self.student).copy_(self.student)
        bias = torch.ones(self.student.shape[1], dtype=statistics_dtype(dtype))
        teacher = None if self.teacher is None else self.teacher.to(dtype)
        values = kernels.loss_rows_(student, teacher, self.labels, self.next, slopes, bias, with_gradient)
        assert bool((memory[self.student.numel() :] == 7.0).all())
        return values, student, bias

    def check(self, kernels, slopes: Slopes = SLOPES) -> None:
        """Against float64, in roundings of the statistics' type.

        A value is a sum over the vocabulary of differences of logits, times T^2; the sums and exponentials of logits
        this far apart are off by some ten roundings of the largest. A gradient is a difference of softmaxes times the
        slopes, and then rounded once to the logits' type, where it is below the least normal number to a unit of it.
        """
        dtype = self.student.dtype
        values, gradient, bias = self.through(kernels, dtype, slopes)
        right, right_gradient, right_bias = self.through(TorchKernels(), torch.float64, slopes)
        rounding, t = torch.finfo(statistics_dtype(dtype)).eps / 2, slopes.temperature
        size = max(1.0, t * t) * (self.spread + math.log(self.student.shape[1]))
        within(values[:, :4], right[:, :4], 64 * rounding * size)
        if slopes.mse:  # without a weight it is not summed
            within(values[:, 4], right[:, 4], 64 * rounding * float(right[:, 4].max()))
        size = slopes.ce * t + slopes.mlm + slopes.clm + 2 * slopes.mse * self.spread
        within(bias, right_bias, 64 * rounding * size * len(self.labels))
        own = torch.finfo(dtype)
        within(gradient, right_gradient, 64 * rounding * size + own.eps / 2 * right_gradient.abs() + own.tiny)


def same(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Where two tensors have the same bits, or are both NaN."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[wanted.element_size()]
    return (found.view(bits) == wanted.view(bits)) | (found.isnan() & wanted.isnan())


# --- the loss ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("t", [1.0, 2.0, 3.0])
def test_rows(kernels, dtype, t):
    Rows(12, 1003, dtype).check(kernels, SLOPES._replace(temperature=t))
    Rows(12, 1003, dtype).check(kernels, Slopes(t, ce=5.0, mlm=2.0, clm=0.0, mse=0.0))  # rows' own code without MSE
    Rows(12, 1003, dtype, teacher=False).check(kernels, Slopes(t, ce=0.0, mlm=2.0, clm=1.5, mse=0.0))
    Rows(70, 67, dtype).check(kernels, SLOPES._replace(temperature=t))  # the bias's gradient is summed in parts of 32


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_end_of_a_row(kernels, dtype):
    """The last lanes of a row are not all its own; a row's neighbour must not be touched."""
    for vocabulary in TAILS:
        Rows(6, vocabulary, dtype).check(kernels)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_logits_of_hundreds(kernels, dtype):
    """Softmaxes of nothing but zeros and a one."""
    Rows(6, 203, dtype, size=300.0).check(kernels)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_look_without_gradient_changes_nothing(kernels, dtype):
    rows = Rows(6, 203, dtype)
    values, student, bias = rows.through(kernels, dtype, SLOPES, with_gradient=False)
    assert torch.equal(student, rows.student) and torch.equal(bias, torch.ones_like(bias))
    assert torch.equal(values, rows.through(kernels, dtype, SLOPES)[0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("t", [1.0, 2.0, 3.0])
def test_equal_logits_have_no_divergence_whether_or_not_products_are_fused(kernels, dtype, t):
    for vocabulary in (1, 5, 63, 64, 1003):
        rows = Rows(6, vocabulary, dtype)
        rows.teacher = rows.student.clone()
        values, gradient, bias = rows.through(kernels, dtype, Slopes(t, ce=5.0, mlm=0.0, clm=0.0, mse=0.01))
        assert not values[:, 0].any() and not values[:, 4].any()
        assert not gradient.any() and torch.equal(bias, torch.ones_like(bias))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_threads_change_no_row(kernels, dtype):
    """Only the bias's gradient, a sum over rows, is added up in another order."""
    rows, outcomes = Rows(7, 1003, dtype), []
    for threads in (1, 2, 3, 8):  # the last: more threads than rows
        torch.set_num_threads(threads)
        outcomes.append(rows.through(kernels, dtype, SLOPES))
    for values, gradient, bias in outcomes[1:]:
        assert bool(same(values, outcomes[0][0]).all()) and bool(same(gradient, outcomes[0][1]).all())
        torch.testing.assert_close(bias, outcomes[0][2])


@pytest.mark.parametrize("t", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("soft", [False, True])
def test_exponentials(kernels, t, soft):
    """A softmax is right to relative roundings far below its largest entry, too.

    exp(x) is 2^y, y = x log2(e): a rounding of y moves it by |x| roundings, and so, by a quarter of that, does log2(e)
    as a float. The polynomial, the sum, the quotient and products are some roundings each. Below 2^-126 it may be 0.
    """
    x = torch.linspace(-90, 0, 4001)[None]
    label, slopes = torch.tensor([4000]), Slopes(t, ce=0.0, mlm=1.0, clm=0.0, mse=0.0)
    gradient = x.clone()
    kernels.loss_rows_(gradient, torch.zeros_like(x) if soft else None, label, None, slopes, None, True)
    wanted = x.double().softmax(-1)
    wanted[0, 4000] -= 1
    within(gradient, wanted, (16 + 1.25 * x.abs().double()) * 2**-24 * wanted.abs() + 2**-126)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("column", [0, 64, 202])
@pytest.mark.parametrize("which", ["student", "teacher"])
def test_a_nan_is_told_by_its_row_alone(kernels, dtype, column, which):
    rows = Rows(6, 203, dtype)
    getattr(rows, which)[3, column] = torch.nan
    values, gradient, _ = rows.through(kernels, dtype, SLOPES)
    others = [0, 1, 2, 4, 5]
    assert values[3, 0].isnan() and gradient[3].isnan().any()
    assert values[others].isfinite().all() and gradient[others].isfinite().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_cosines(kernels, dtype):
    """Widths of every end. Inputs and values are of size 1; the gradient of 1 / a norm, rounded to the type."""
    draw = torch.Generator().manual_seed(0)
    for width in TAILS:
        student, teacher = torch.randn(2, 5, width, generator=draw).to(dtype)
        values, factors = kernels.cosines(student, teacher)
        scale = torch.tensor(0.37, dtype=values.dtype)
        gradient = kernels.cosine_gradients(student, teacher, factors, scale)
        right, right_factors = TorchKernels().cosines(student.double(), teacher.double())
        wanted = TorchKernels().cosine_gradients(student.double(), teacher.double(), right_factors, scale.double())
        rounding, own = torch.finfo(values.dtype).eps / 2, torch.finfo(dtype)
        within(values, right, 16 * rounding)
        parts = (teacher.double() * right_factors[:, :1]).abs() + (student.double() * right_factors[:, 1:]).abs()
        within(gradient, wanted, 32 * rounding * parts + own.eps / 2 * wanted.abs() + own.tiny)


# --- numbers of 16 bits --------------------------------------------------------------------------------------------


def patterns(dtype: torch.dtype) -> torch.Tensor:
    """Each of the 65,536."""
    return torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)


def allowed_zeros(narrow: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Where a float below 2^-126 became a zero of its sign, which AVX512-BF16's instruction makes of it."""
    return (x.abs() < 2**-126) & (narrow == 0) & (narrow.signbit() == x.signbit())


def test_every_bfloat16_is_widened_exactly(kernels):
    part = patterns(torch.bfloat16)
    for count in (65_536, 65_535, 65_521):  # lanes, and ends that are widened one by one
        total = torch.full((count,), -0.0)  # to which any number may be added without a change, -0 among them
        kernels.add_(total, part[:count])
        assert bool(same(total, part[:count].float()).all())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_every_number_survives_lanes(kernels, dtype, march):
    """Read and written again: the gradient of the cosine is factors[1] * s - factors[0] * t, here 1 * s - 0 * 0."""
    for width in (65_536, 65_521):
        student = patterns(dtype)[None, :width].contiguous()
        teacher = torch.full_like(student, -0.0)
        factors = torch.tensor([[0.0, 1.0]])
        again = kernels.cosine_gradients(student, teacher, factors, torch.ones(()))
        fine = same(again, student) | (student == 0) & (again == 0)
        if dtype == torch.bfloat16 and march == "native" and "avx512_bf16" in flags():
            fine |= allowed_zeros(again, student.float())
        assert bool(fine.all()), student[~fine]


def test_every_float16_is_widened_exactly(kernels):
    """The square of the difference to 0: 22 bits at most, so that a float holds it exactly."""
    student = patterns(torch.float16)[:, None].contiguous()
    wanted = student.float().square()
    labels = torch.full((len(student),), IGNORED)
    slopes = Slopes(1.0, ce=0.0, mlm=0.0, clm=0.0, mse=1.0)
    values = kernels.loss_rows_(student, torch.zeros_like(student), labels, None, slopes, None, False)
    assert bool(same(values[:, 4].contiguous(), wanted[:, 0]).all())


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_narrowing_rounds_to_nearest_and_ties_to_even(kernels, dtype, march):
    """As torch's own conversion, for every sign, exponent and start of a fraction, at, above and below every tie."""
    high = torch.arange(-(2**15), 2**15, dtype=torch.int32) << 16
    ends = torch.tensor([k << 13 | end for k in range(8) for end in (0, 0xFFF, 0x1000, 0x1001, 0x1FFF)])
    x = (high[:, None] | ends.to(torch.int32)).view(torch.float32).flatten()
    found, wanted = kernels.scaled(x, torch.ones(()), dtype), x.to(dtype)
    fine = same(found, wanted)
    if dtype == torch.bfloat16 and march == "native" and "avx512_bf16" in flags():
        fine |= allowed_zeros(found, x)
    assert bool(fine.all()), (x[~fine][:10], found[~fine][:10], wanted[~fine][:10])
    assert wanted.isinf().any() and wanted.isnan().any() and (wanted == 0).any()  # all of these were among them


# --- sums and products of whole tensors ----------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_add(kernels, threads):
    torch.set_num_threads(threads)
    for count in [*range(41), 1001]:
        total, part = torch.randn(count + 64), torch.randn(count).bfloat16()
        wanted = torch.cat((total[:count] + part.float(), total[count:]))
        kernels.add_(total[:count], part)
        assert torch.equal(total, wanted)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("factor", [0.37, 1.0, -(2.0**-20), math.inf])
def test_scaled(kernels, dtype, factor):
    """A float times the factor, a float, is rounded to a float and then to the type. Doubles go to torch."""
    factor = torch.tensor(factor)
    source = torch.float64 if dtype == torch.float64 else torch.float32
    for threads in (1, 3):
        torch.set_num_threads(threads)
        for count in [*range(41), 1001]:
            x = torch.randn(count, dtype=source)
            before = x.clone()
            found = kernels.scaled(x, factor, dtype)
            assert found.dtype == dtype and bool(same(found, (before * factor.to(source)).to(dtype)).all())
            assert torch.equal(x, before)


def test_a_product_with_1_is_not_made(kernels):
    x = torch.randn(5)
    assert kernels.scaled(x, torch.ones(()), torch.float32) is x


def test_memory_of_any_size_can_be_had(kernels):
    """It asks for large pages, of which small and odd pieces have none."""
    for shape in [(0, 5), (1, 1), (3, 4097), (300, 30_522)]:
        memory = kernels.empty(shape, torch.zeros(1, dtype=torch.bfloat16))
        assert memory.shape == shape and memory.dtype == torch.bfloat16
        assert not memory.zero_().any()
