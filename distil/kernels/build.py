"""Build the kernels: a shared library by the machine's C++ compiler, GPU modules by NVRTC. Never at import.

    python -m distil.kernels.build                       for this machine: its CPU, and the GPUs that it has
    python -m distil.kernels.build --arch sm_70 sm_90    for GPUs of other machines, on a login node, say

What is built lies in ``kernels/`` of the folder for what is prepared once (.cache, or where DISTIL_CACHE says), under
a name that holds a hash of everything it was made from. NVRTC comes with torch's CUDA builds; a toolkit is not needed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from distil import errors
from distil.errors import ConfigError, one_line
from distil.folder import prepared
from distil.kernels import nvrtc

SOURCES = Path(__file__).parent / "csrc"
CPU_SOURCES = ("loss.cpp", "cosine.cpp", "dropout.cpp", "attention.cpp")
CUDA_SOURCE, CUDA_HEADERS = "loss.cu", ("loss.h", "gpu.h")
FALL_BACK = "set DISTIL_LOSS=torch, which needs no compiler and is slower"
CPU_OPTIONS = ("-std=c++17", "-O3", "-fopenmp", "-shared", "-fPIC", "-Wno-psabi")


def compiler() -> list[str] | None:
    """The command of the C++ compiler: $CXX, which must be there, or the first that is of c++, g++ and clang++."""
    if os.environ.get("CXX"):
        command = os.environ["CXX"].split()
        if not command or shutil.which(command[0]) is None:
            name = command[0] if command else "program of that name"
            raise ConfigError(f"CXX={os.environ['CXX']}: there is no {name}; unset CXX or {FALL_BACK}")
        return command
    return next(([found] for name in ("c++", "g++", "clang++") if (found := shutil.which(name))), None)


def cpu_library(march: str = "native") -> Path:
    """The CPU kernels' shared library, built unless it is there; ConfigError with the compiler's message."""
    found = compiler()
    if found is None:
        raise ConfigError(f"no C++ compiler for the loss kernels: install one (apt-get install g++) or {FALL_BACK}")
    command = [*found, *CPU_OPTIONS, f"-march={march}"]
    try:
        version = subprocess.run([*found, "--version"], capture_output=True, text=True).stdout
    except OSError as error:
        raise ConfigError(f"{found[0]} does not run ({error.strerror}); set CXX to a compiler or {FALL_BACK}") from None
    key = _key(*command, version, _cpu() if march == "native" else platform.machine())

    def make(target: Path) -> None:
        sources = [str(SOURCES / name) for name in CPU_SOURCES]
        result = subprocess.run([*command, "-o", str(target), *sources], capture_output=True, text=True)
        if result.returncode:
            raise ConfigError(f"the loss kernels do not compile: {_end(result.stderr)}; mend {found[0]} or {FALL_BACK}")

    return _built(f"loss-cpu-{march}-{key}.so", make)


def cuda_module(arch: str) -> Path:
    """The GPU kernels as machine code for ``arch`` ("sm_70"), built unless there; ConfigError with NVRTC's message."""
    try:
        library = nvrtc.load()
    except OSError as error:
        raise ConfigError(
            f"no NVRTC for the loss kernels: {error}; install torch's CUDA build, or nvidia-cuda-nvrtc-cu12 alone, "
            f"or {FALL_BACK}"
        ) from None

    def make(target: Path) -> None:
        headers = {name: (SOURCES / name).read_text() for name in CUDA_HEADERS}
        try:
            target.write_bytes(library.compile((SOURCES / CUDA_SOURCE).read_text(), CUDA_SOURCE, headers, arch))
        except nvrtc.CompileError as error:
            raise ConfigError(f"the loss kernels do not compile for {arch}: {_end(str(error))}; {FALL_BACK}") from None

    return _built(f"loss-{arch}-{_key(library.version, arch)}.cubin", make)


def arch_of(device: torch.device) -> str:
    """The architecture of a GPU, as compilers name it."""
    major, minor = torch.cuda.get_device_capability(device)
    return f"sm_{major}{minor}"


def _built(name: str, make: Callable[[Path], None]) -> Path:
    """The file of that name; made aside and renamed, so that ranks that build at once see no halves."""
    folder, shared = prepared() / "kernels", True
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / name).exists():
            return (folder / name).resolve()
        handle, draft = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    except OSError as error:  # a place that cannot be written: this process builds its own
        warnings.warn(f"{folder}: {error.strerror}; the loss kernels are built anew at every start", stacklevel=4)
        folder, shared = Path(tempfile.mkdtemp(prefix="distil-kernels-")), False
        handle, draft = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    os.close(handle)
    try:
        make(Path(draft))
        Path(draft).chmod(0o755)  # colleagues may share the folder
        os.replace(draft, folder / name)
    finally:
        Path(draft).unlink(missing_ok=True)
        if not shared and not (folder / name).exists():
            folder.rmdir()
    return (folder / name).resolve()


def _key(*parts: str) -> str:
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.read_bytes())
    digest.update("\0".join(parts).encode())
    return digest.hexdigest()[:16]


def _cpu() -> str:
    """What -march=native depends on; homes are shared by machines that differ."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    kinds = {line for line in lines if line.startswith(("flags", "model name", "Features", "CPU part"))}
    return "\n".join(sorted(kinds)) or platform.processor() or platform.machine()


def _end(message: str) -> str:
    telling = ("error", "cannot find", "undefined reference")
    lines = [line for line in message.splitlines() if any(word in line for word in telling)] or message.splitlines()
    return one_line(" ".join(lines[:3]))[:600] or "the compiler gives no reason"


def main() -> None:
    """Build what was asked for and print where it lies."""
    parser = argparse.ArgumentParser(prog="python -m distil.kernels.build", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--arch", nargs="+", default=None, metavar="sm_70", help="GPU architectures; default: those here"
    )
    arches = parser.parse_args().arch
    if arches is None:
        print(f"built {cpu_library()}")
        arches = sorted({arch_of(torch.device("cuda", i)) for i in range(torch.cuda.device_count())})
    for arch in arches:
        print(f"built {cuda_module(arch)}")


if __name__ == "__main__":
    sys.exit(errors.run(main))
