"""How kernels are launched, seen from the emulated GPU; and on a real one, the real thing."""

from __future__ import annotations

import threading

import pytest
import torch
from emulated import EmulatedLauncher
from losses import Precise, check, errors

from distil.kernels import TERMS, paths
from distil.kernels.cuda import CudaKernels
from distil.kernels.paths import using

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize(
    ("shared_kib", "vocabulary", "dtype", "kept"),
    [
        (96, 30_522, torch.float16, False), (163, 30_522, torch.bfloat16, True), (227, 30_522, torch.bfloat16, True),
        (227, 30_522, torch.float32, False), (227, 119_547, torch.bfloat16, False), (96, 8191, torch.float32, True),
        (227, 19, torch.float64, False),
    ],
)  # fmt: skip
def test_a_row_is_held_on_chip_where_it_fits(shared_kib, vocabulary, dtype, kept):
    launcher = EmulatedLauncher(shared_bytes=shared_kib * 1024)
    with using(CudaKernels(launcher), 1):
        Precise(1, vocabulary, dtype).run(temperature=2.0)
    (kernel,) = {name for name in launcher.launched if name.startswith("loss_rows")}
    assert ("_kept_" in kernel) == kept


def test_a_row_that_is_read_once_is_not_held():
    launcher = EmulatedLauncher()
    with using(CudaKernels(launcher), 2), torch.no_grad():
        s = Precise(2, 301, torch.float32)
        s.loss([tensor.detach() for tensor in s.leaves()], temperature=2.0)
    assert launcher.launched == ["loss_rows_float32", "cosines_float32"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("threads", [32, 512, 1024])
def test_any_number_of_warps_does_a_row(threads, dtype):
    s = Precise(2, 1003, dtype)
    truth = s.truth(temperature=2.0)
    with using(CudaKernels(EmulatedLauncher(threads=threads)), 2):
        found = s.run(temperature=2.0)
    # fp32 statistics of 16-bit logits: the type's rounding of logits and gradients, some of each, decides.
    assert errors(found.weight, truth.weight)[1] <= 4 * torch.finfo(dtype).eps * float(truth.weight.abs().max())


def test_no_rows_launch_nothing():
    launcher = EmulatedLauncher()
    with using(CudaKernels(launcher), 2):
        s = Precise(3, 301, torch.float32, everything_ignored=True)
        s.weights = {"alpha_mlm": 1.0}
        found = s.run(temperature=1.0)
    assert launcher.launched == [] and not found.weight.any() and found.weight.shape == (301, 16)


def test_words_that_rows_share_are_not_written_beyond_a_row():
    """Rows of 1,003 numbers begin amid a word: what a block writes must stay its own, whichever block is first."""
    s = Precise(5, 1003, torch.bfloat16)
    outcomes = []
    for rows in (1, 5):
        with using(CudaKernels(EmulatedLauncher()), rows):
            outcomes.append(s.run(temperature=2.0).hidden)
    # The products of one and of five rows may sum in another order; a row that was written over would be off by all.
    torch.testing.assert_close(*outcomes, rtol=2**-7, atol=2**-7 * float(outcomes[0].abs().max()))


# --- where there is a GPU ------------------------------------------------------------------------------------------


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("dtype", [*DTYPES, torch.float64], ids=str)
@pytest.mark.parametrize("t", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("rows", [1, 7, 1000])
@pytest.mark.parametrize("vocabulary", [2, 8191, 30_522, 119_547])
def test_on_a_gpu_the_error_is_at_most_twice_that_of_eager_code(rows, vocabulary, t, dtype):
    check(Precise(rows, vocabulary, dtype, device="cuda"), "kernel", temperature=t)


@pytest.mark.gpu
@NEEDS_GPU
def test_on_a_gpu_a_thread_that_is_new_to_it_can_launch():
    s, found = Precise(7, 301, torch.float16, device="cuda"), []
    with using("kernel"):
        wanted = s.run(temperature=2.0)
    thread = threading.Thread(target=lambda: found.append(s.run(temperature=2.0)))
    thread.start()
    thread.join()
    assert all(torch.equal(a, b) for a, b in zip(found[0], wanted, strict=True))


@pytest.mark.gpu
@NEEDS_GPU
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("keep_rows", [True, False])
def test_on_a_gpu_held_rows_and_a_second_run_give_the_same_bits(keep_rows, dtype):
    s = Precise(200, 30_522, dtype, device="cuda")
    with using("kernel"):
        wanted = s.run(temperature=2.0)
    device = torch.device("cuda", torch.cuda.current_device())
    launcher = paths.path_for(device).kernels._launcher
    with using(CudaKernels(launcher, keep_rows)):
        for _ in range(2):
            found = s.run(temperature=2.0)
            # Blocks of 512 and of 1,024 threads merge in another order, so only the default is the same to the bit.
            exact = keep_rows and all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
            assert exact or not keep_rows
            assert errors(found.weight, wanted.weight.double())[1] <= 1e-2 * float(wanted.weight.abs().max())


@pytest.mark.gpu
@NEEDS_GPU
def test_on_a_gpu_a_label_beyond_the_vocabulary_is_nan_and_no_crash():
    s = Precise(7, 301, torch.float16, device="cuda")
    s.tensors["labels"][3] = 301
    with using("kernel"):
        found = s.run(temperature=2.0)
    assert found.terms[TERMS.index("mlm")].isnan() and found.terms[TERMS.index("ce")].isfinite()
    torch.cuda.synchronize()
