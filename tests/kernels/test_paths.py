"""Which code computes the loss: the user's word, then what the device and the machine allow."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest
import torch
from losses import Setting, assert_close, floor_of

from distil.errors import ConfigError
from distil.kernels import TERMS, build, cpu, paths
from distil.kernels.paths import path_for, using
from distil.kernels.rows import TorchKernels

CPU = torch.device("cpu")
WEIGHTS = {"alpha_ce": 5.0, "alpha_mlm": 2.0, "alpha_clm": 1.0, "alpha_cos": 1.0, "alpha_mse": 0.5}
needs_compiler = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """No choice but the test's own."""
    monkeypatch.delenv("DISTIL_LOSS", raising=False)
    monkeypatch.delenv("DISTIL_LOSS_CHUNK", raising=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tensors are tiny here
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_compiler(monkeypatch):
    """A machine without one; what was found out before is forgotten, and forgotten again afterwards."""
    paths._path.cache_clear()
    cpu.kernels.cache_clear()
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    yield
    paths._path.cache_clear()
    cpu.kernels.cache_clear()


# --- one loss ------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("chunk", ["", "1", "4", "1000"])
def test_the_choice_changes_no_number(chunk, monkeypatch):
    s = Setting(rows=11, vocab=50, masked=(0, 3, 9), same_width=True)
    found = {}
    monkeypatch.setenv("DISTIL_LOSS_CHUNK", chunk)
    for name in ("reference", "torch", "kernel", "auto"):
        monkeypatch.setenv("DISTIL_LOSS", name)
        loss = s.loss(**WEIGHTS)
        found[name] = (loss.terms, *torch.autograd.grad(loss.total, s.leaves))
    wanted = found.pop("reference")
    floor = 5.0 * floor_of(s, 2.0)  # the largest weight, on the largest number that a difference is taken of
    for others in found.values():
        for one, other in zip(others, wanted, strict=True):
            assert_close(one, other.double(), floor)
    assert all(torch.equal(a, b) for a, b in zip(found["auto"], found["kernel"], strict=True))
    assert wanted[0][TERMS.index("ce")] > 0


# --- the user's word -----------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize(
    ("name", "kind"), [("reference", type(None)), ("torch", TorchKernels), ("kernel", cpu.CpuKernels)]
)
def test_the_environment_names_a_path(name, kind, monkeypatch):
    monkeypatch.setenv("DISTIL_LOSS", name)
    path = path_for(CPU)
    assert path.name == name and isinstance(path.kernels, kind) and path.why == "chosen by the user"


@pytest.mark.parametrize("name", ["cuda", "Kernel", "torch ", "fused"])
def test_an_unknown_path_is_refused(name, monkeypatch):
    monkeypatch.setenv("DISTIL_LOSS", name)
    with pytest.raises(ConfigError) as caught:
        Setting().loss(alpha_ce=1.0)
    said = str(caught.value)
    assert said.startswith(f"DISTIL_LOSS={name}:") and "\n" not in said
    assert all(allowed in said for allowed in ("auto", "kernel", "torch", "reference"))


def test_the_environment_names_the_rows_of_a_chunk(monkeypatch):
    monkeypatch.setenv("DISTIL_LOSS", "torch")
    assert path_for(CPU).chunk_rows is None  # the memory decides
    monkeypatch.setenv("DISTIL_LOSS_CHUNK", "4")
    seen = []

    class Watching(TorchKernels):
        def loss_rows_(self, student_RV, *others):
            seen.append(len(student_RV))
            return super().loss_rows_(student_RV, *others)

    monkeypatch.setattr(paths, "TorchKernels", Watching)
    paths._path.cache_clear()
    Setting(rows=11).loss(alpha_ce=1.0)
    paths._path.cache_clear()
    assert seen == [4, 4, 3]


@pytest.mark.parametrize("rows", ["0", "-1", "1.5", "many", " ", "1e3", "²"])
def test_a_chunk_of_no_number_of_rows_is_refused(rows, monkeypatch):
    monkeypatch.setenv("DISTIL_LOSS_CHUNK", rows)
    with pytest.raises(ConfigError) as caught:
        Setting().loss(alpha_ce=1.0)
    said = str(caught.value)
    assert said.startswith(f"DISTIL_LOSS_CHUNK={rows}:") and "1 or more" in said and "\n" not in said


def test_the_callers_word_wins_and_is_taken_back(monkeypatch):
    monkeypatch.setenv("DISTIL_LOSS", "reference")
    monkeypatch.setenv("DISTIL_LOSS_CHUNK", "7")
    own = TorchKernels()
    with using("torch", 3):
        assert (path_for(CPU).name, path_for(CPU).chunk_rows) == ("torch", 3)
        with using(own):
            assert path_for(CPU).kernels is own and path_for(CPU).chunk_rows is None
        assert path_for(CPU).name == "torch"
    assert path_for(CPU).name == "reference"


def test_an_exception_takes_it_back_too(monkeypatch):
    monkeypatch.setenv("DISTIL_LOSS", "reference")
    with pytest.raises(KeyError), using("torch"):
        raise KeyError
    assert path_for(CPU).name == "reference"


def test_a_wrong_environment_does_not_reach_who_chooses(monkeypatch):
    monkeypatch.setenv("DISTIL_LOSS", "nonsense")
    with using("reference"):
        assert Setting().loss(alpha_ce=1.0).total > 0


# --- what the machine allows ---------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.skipif(sys.platform != "linux", reason="kernels of a CPU are for Linux")
def test_auto_is_the_kernels_where_there_is_a_compiler(recwarn):
    paths._path.cache_clear()
    path = path_for(CPU)
    assert path.name == "kernel" and build.compiler()[0] in path.why and not recwarn.list


def test_auto_is_torch_with_a_warning_where_there_is_none(no_compiler):
    s = Setting()
    with pytest.warns(UserWarning, match="no C\\+\\+ compiler.*apt-get install g\\+\\+"):
        found = s.loss(alpha_ce=1.0)
    assert path_for(CPU).name == "torch" and path_for(CPU).why == "no C++ compiler"
    with using("torch"):
        assert torch.equal(found.total, s.loss(alpha_ce=1.0).total)


def test_the_warning_comes_once(no_compiler):
    with pytest.warns(UserWarning, match="no C"):
        path_for(CPU)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path_for(CPU)


def test_kernels_that_were_asked_for_are_not_replaced_in_silence(no_compiler, monkeypatch):
    monkeypatch.setenv("DISTIL_LOSS", "kernel")
    with pytest.raises(ConfigError, match="apt-get install g\\+\\+"):
        Setting().loss(alpha_ce=1.0)


def test_kernels_that_do_not_compile_are_told_and_not_replaced_in_silence(no_compiler, tmp_path, monkeypatch):
    script = tmp_path / "broken"
    script.write_text("#!/bin/sh\necho 'error: xyz' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", os.defpath)  # for /bin/sh alone
    with pytest.raises(ConfigError, match="xyz.*DISTIL_LOSS=torch"):
        Setting().loss(alpha_ce=1.0)


@pytest.mark.parametrize("name", ["torch", "reference"])
def test_no_compiler_is_needed_by_who_does_not_ask_for_one(name, no_compiler, monkeypatch):
    monkeypatch.setenv("DISTIL_LOSS", name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Setting().loss(alpha_ce=1.0).total > 0


def test_a_device_without_kernels(monkeypatch):
    elsewhere = torch.device("meta")
    assert path_for(elsewhere).name == "torch" and "meta" in path_for(elsewhere).why
    monkeypatch.setenv("DISTIL_LOSS", "kernel")
    with pytest.raises(ConfigError, match="meta"):
        path_for(elsewhere)


def test_importing_builds_nothing_and_needs_no_compiler(tmp_path):
    """Data preparation and --help on a login node must not wait for a compiler."""
    code = "import sys, distil.kernels, distil.kernels.cpu, distil.kernels.cuda; print('fine')"
    environment = {name: value for name, value in os.environ.items() if name != "CXX"}
    environment |= {"PATH": "", "DISTIL_CACHE": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "fine\n", "")
    assert not (tmp_path / "cache").exists()
