"""NVIDIA's run-time compiler, which comes with torch's CUDA builds: CUDA C++ in, machine code of one GPU out."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch


class CompileError(RuntimeError):
    """The source does not compile, or not for that architecture; the message is the compiler's."""


class Nvrtc:
    """One NVRTC library. Raises OSError where it cannot be loaded."""

    def __init__(self, path: str) -> None:
        for builtins in sorted(Path(path).parent.glob("libnvrtc-builtins.so*")) if "/" in path else ():
            ctypes.CDLL(str(builtins))  # which NVRTC 13 of PyPI does not find by itself
        self._library = ctypes.CDLL(path)
        self._library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        self.version = f"{major.value}.{minor.value}"

    def compile(self, source: str, name: str, headers: dict[str, str], arch: str) -> bytes:
        """Machine code (a cubin) of a source for ``arch``, as "sm_70"; ``headers`` are what it includes, by name."""
        program = ctypes.c_void_p()
        texts = (ctypes.c_char_p * len(headers))(*(text.encode() for text in headers.values()))
        names = (ctypes.c_char_p * len(headers))(*(header.encode() for header in headers))
        self._check(
            self._library.nvrtcCreateProgram(
                ctypes.byref(program), source.encode(), name.encode(), len(headers), texts, names
            )
        )
        try:
            options = [b"--std=c++17", f"--gpu-architecture={arch}".encode()]
            array = (ctypes.c_char_p * len(options))(*options)
            failed = self._library.nvrtcCompileProgram(program, len(options), array)
            if failed:
                log = self._bytes(program, "ProgramLog").rstrip(b"\0").decode(errors="replace")
                raise CompileError(f"{self._library.nvrtcGetErrorString(failed).decode()}: {log}")
            return self._bytes(program, "CUBIN")
        finally:
            self._library.nvrtcDestroyProgram(ctypes.byref(program))

    def _bytes(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        self._check(self._library[f"nvrtcGet{what}Size"](program, ctypes.byref(size)))
        text = ctypes.create_string_buffer(size.value)
        self._check(self._library[f"nvrtcGet{what}"](program, text))
        return text.raw

    def _check(self, failed: int) -> None:
        if failed:
            raise CompileError(self._library.nvrtcGetErrorString(failed).decode())


@cache
def load() -> Nvrtc:
    """The NVRTC of torch's own CUDA version, or any; OSError where there is none."""
    tried = []
    for path in _candidates():
        try:
            return Nvrtc(path)
        except OSError as error:
            tried.append(str(error))
    raise OSError(tried[0] if tried else "there is none")


def _candidates() -> Iterator[str]:
    major = (torch.version.cuda or "").split(".")[0]
    name = f"libnvrtc.so.{major}" if major else "libnvrtc.so.*"
    for folder in sys.path:  # NVIDIA's packages: nvidia/cuda_nvrtc/lib up to CUDA 12, nvidia/cu13/lib from 13 on
        yield from sorted(str(path) for path in Path(folder).glob(f"nvidia/*/lib/{name}"))
    if major:
        yield name
    found = ctypes.util.find_library("nvrtc")
    if found:
        yield found
