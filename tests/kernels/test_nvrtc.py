"""csrc/loss.cu by NVIDIA's own compilers, which need no GPU: every architecture, and what is told when one fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from distil.errors import ConfigError
from distil.folder import building, prepared
from distil.kernels import build, cuda, nvrtc
from distil.kernels.nvrtc import CompileError, Nvrtc
from distil.kernels.rows import Slopes

# Version: package of that version on PyPI, and where its library lies.
PACKAGES = {
    "12": ("nvidia-cuda-nvrtc-cu12==12.9.86", "nvidia/cuda_nvrtc/lib/libnvrtc.so.12"),
    "13": ("nvidia-cuda-nvrtc==13.0.88", "nvidia/cu13/lib/libnvrtc.so.13"),
}
# From the oldest GPU that the kernels are for to the newest; CUDA 13 no longer knows Volta.
ARCHES = [("12", "sm_70"), ("12", "sm_80"), ("12", "sm_90"), ("13", "sm_80"), ("13", "sm_90"), ("13", "sm_100")]
ELF = b"\x7fELF"


@cache
def package(version: str) -> Path | str:
    """The folder of an NVRTC, downloaded once and not installed; why there is none otherwise."""
    requirement, _ = PACKAGES[version]
    folder = prepared().resolve() / f"nvrtc-{requirement.partition('==')[2]}"
    if folder.exists():
        return folder
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--only-binary=:all:"]
    try:
        with building(folder) as draft:
            command = [sys.executable, "-m", "pip", "install", *options, "--target", str(draft), requirement]
            subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    except subprocess.CalledProcessError as error:
        return f"{requirement} cannot be downloaded: {error.stderr.strip().splitlines()[-1:]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{requirement} cannot be downloaded: {error}"
    return folder


@cache
def library(version: str) -> Nvrtc | str:
    folder = package(version)
    return folder if isinstance(folder, str) else Nvrtc(str(folder / PACKAGES[version][1]))


def nvrtc_of(version: str) -> Nvrtc:
    found = library(version)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@cache
def cubin(version: str, arch: str) -> bytes:
    headers = {name: (build.SOURCES / name).read_text() for name in build.CUDA_HEADERS}
    return nvrtc_of(version).compile((build.SOURCES / "loss.cu").read_text(), "loss.cu", headers, arch)


# The folders are asked for before any test can change DISTIL_CACHE: `prepared` is where it was when they began.
@pytest.fixture(scope="session", autouse=True)
def downloaded():
    for version in PACKAGES:
        package(version)


@pytest.fixture
def kept(tmp_path, monkeypatch) -> Path:
    """Where this test's modules lie."""
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RANK", raising=False)
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def found(monkeypatch):
    """``nvrtc.load`` finds NVRTC 12 and no other."""
    nvrtc_of("12")
    path = package("12") / PACKAGES["12"][1]
    monkeypatch.setattr(nvrtc, "_candidates", lambda: iter(["/no/such/libnvrtc.so", str(path)]))
    nvrtc.load.cache_clear()
    yield
    nvrtc.load.cache_clear()


def launched() -> set[str]:
    """Names of all kernels that cuda.py launches, of every type, by asking it to."""

    class Noting:
        def __init__(self, shared_bytes: int) -> None:
            self.shared_bytes, self.names = shared_bytes, set()

        def launch(self, kernel, blocks, threads, shared, arguments) -> None:
            self.names.add(kernel)

    both = [Noting(0), Noting(99 * 1024)]
    slopes, labels = Slopes(2.0, 1.0, 1.0, 0.0, 0.0), torch.zeros(2, dtype=torch.int64)
    for launcher in both:
        kernels = cuda.CudaKernels(launcher)
        for dtype in cuda.NAMES:
            rows = torch.zeros(2, 16, dtype=dtype)
            kernels.loss_rows_(rows, rows.clone(), labels, None, slopes, None, True)
            _, factors = kernels.cosines(rows, rows)
            kernels.cosine_gradients(rows, rows, factors, torch.ones(()))
    return both[0].names | both[1].names


# --- the source ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "arch"), ARCHES)
def test_the_source_compiles_and_holds_every_kernel(version, arch):
    code = cubin(version, arch)
    assert code.startswith(ELF)
    names = launched()
    assert {"loss_rows_bfloat16", "loss_rows_kept_float16", "cosines_float32", "cosine_gradients_float64"} <= names
    assert len(names) == 15  # four kernels of four types, but for rows of doubles, which are never held on chip
    for name in names:
        assert b"\0" + name.encode() + b"\0" in code, name  # a symbol of that name and no longer one


def test_the_versions_are_told_apart():
    """They are part of a module's name: a newer compiler makes other code."""
    assert [nvrtc_of(version).version for version in PACKAGES] == ["12.9", "13.0"]


def test_an_architecture_that_a_compiler_no_longer_knows():
    with pytest.raises(CompileError) as caught:
        cubin("13", "sm_70")
    assert "INVALID_OPTION" in str(caught.value) and "architecture" in str(caught.value)


def test_an_error_in_a_source_is_told_with_its_line():
    source = 'extern "C" __global__ void f(float *x) {\n  *x = no_such_name;\n}\n'
    with pytest.raises(CompileError) as caught:
        nvrtc_of("12").compile(source, "mine.cu", {}, "sm_80")
    assert "mine.cu(2): error:" in str(caught.value) and "no_such_name" in str(caught.value)
    assert "\0" not in str(caught.value)


def test_a_header_that_is_not_given_is_not_found_elsewhere():
    with pytest.raises(CompileError, match="loss.h"):
        nvrtc_of("12").compile('#include "loss.h"\n', "mine.cu", {}, "sm_80")


def test_the_cuda_toolkit_compiles_it_too(tmp_path):
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc")
    target = tmp_path / "loss.cubin"
    command = ["nvcc", "-arch=sm_90", "-cubin", "-std=c++17", "-o", str(target), str(build.SOURCES / "loss.cu")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr and target.read_bytes().startswith(ELF)


# --- modules -------------------------------------------------------------------------------------------------------


def test_a_module_is_built_once(kept, found):
    module = build.cuda_module("sm_80")
    built = module.stat()
    assert module.parent == kept.resolve() and module.suffix == ".cubin" and "sm_80" in module.name
    assert module.read_bytes() == cubin("12", "sm_80")  # the headers that it is given are the ones that it needs
    again = build.cuda_module("sm_80")
    assert again == module and (again.stat().st_mtime_ns, again.stat().st_ino) == (built.st_mtime_ns, built.st_ino)
    assert [path.name for path in kept.iterdir()] == [module.name]


def broken(folder: Path, source: str = "") -> Path:
    shutil.copytree(build.SOURCES, folder)
    with (folder / "loss.cu").open("a") as file:
        file.write(source)
    return folder


def test_a_source_that_does_not_compile_names_the_way_out(kept, found, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "SOURCES", broken(tmp_path / "csrc", "int x = no_such_name;\n"))
    with pytest.raises(ConfigError) as caught:
        build.cuda_module("sm_80")
    said = str(caught.value)
    assert "sm_80" in said and "loss.cu(" in said and "no_such_name" in said and "DISTIL_LOSS=torch" in said
    assert "\n" not in said and list(kept.iterdir()) == []


def test_an_unknown_architecture_names_the_way_out(kept, found):
    with pytest.raises(ConfigError) as caught:
        build.cuda_module("sm_1")
    said = str(caught.value)
    assert "sm_1" in said and "architecture" in said and "DISTIL_LOSS=torch" in said and list(kept.iterdir()) == []


def test_without_nvrtc_the_way_out_is_named(kept, monkeypatch):
    monkeypatch.setattr(nvrtc, "_candidates", lambda: iter(["/no/such/libnvrtc.so"]))
    nvrtc.load.cache_clear()
    with pytest.raises(ConfigError) as caught:
        build.cuda_module("sm_80")
    nvrtc.load.cache_clear()
    said = str(caught.value)
    assert "no NVRTC" in said and "/no/such/libnvrtc.so" in said and "DISTIL_LOSS=torch" in said
    assert not kept.exists()


# --- as it is found: on sys.path, where torch's CUDA builds have it ------------------------------------------------


def program(version: str, *arguments: str) -> subprocess.CompletedProcess:
    """The build program with an NVRTC on its path."""
    nvrtc_of(version)
    if torch.version.cuda and not torch.version.cuda.startswith(version):
        pytest.skip(f"torch is of CUDA {torch.version.cuda} and takes that one's")
    command = [sys.executable, "-m", "distil.kernels.build", *arguments]
    environment = os.environ | {"PYTHONPATH": str(package(version))}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)


@pytest.mark.parametrize(("version", "arches"), [("12", ["sm_80", "sm_70"]), ("13", ["sm_80"])])
def test_the_program_builds_for_gpus_of_other_machines(kept, version, arches):
    """On a login node: for the architectures asked for, and nothing for the CPU that happens to be there."""
    done = program(version, "--arch", *arches)
    assert done.returncode == 0, done.stderr
    built = [Path(line.removeprefix("built ")) for line in done.stdout.splitlines()]
    assert sorted(path.name for path in kept.iterdir()) == sorted(path.name for path in built)
    assert [path.name.split("-")[1] for path in built] == arches
    assert all(path.read_bytes().startswith(ELF) for path in built)


@pytest.mark.parametrize("version", PACKAGES)
def test_the_program_refuses_an_unknown_architecture(kept, version):
    done = program(version, "--arch", "nonsense")
    assert done.returncode == 78 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "do not compile for nonsense" in done.stderr and "architecture" in done.stderr
    assert list(kept.iterdir()) == []
