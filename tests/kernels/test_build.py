"""Building the CPU kernels: once, whole or not at all, by several processes at once, and refusals in plain words."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from distil.errors import ConfigError
from distil.kernels import build, nvrtc

pytestmark = pytest.mark.skipif(build.compiler() is None, reason="no C++ compiler")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """Where this test's libraries lie. A rank would change how errors are told."""
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RANK", raising=False)
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def small(tmp_path, monkeypatch) -> Path:
    """Sources that compile in no time, for tests of what happens around the compiler."""
    folder = tmp_path / "csrc"
    folder.mkdir()
    (folder / build.CPU_SOURCES[0]).write_text('extern "C" int answer() { return 42; }\n')
    for name in build.CPU_SOURCES[1:]:
        (folder / name).write_text("")
    monkeypatch.setattr(build, "SOURCES", folder)
    return folder


def compiler(folder: Path, script: str) -> str:
    """A compiler that is a shell script; $REAL in it is the machine's own."""
    path = folder / "my-compiler"
    path.write_text(f"#!/bin/sh\nREAL={build.compiler()[0]}\n{script}\n")
    path.chmod(0o755)
    return str(path)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def answer(library: Path) -> int:
    return ctypes.CDLL(str(library)).answer()


# --- what is built -------------------------------------------------------------------------------------------------


def test_a_library_is_built_once(cache, small):
    library = build.cpu_library()
    built = library.stat()
    assert library.is_absolute() and library.parent == cache.resolve() and answer(library) == 42
    assert names(cache) == [library.name]  # no draft is left
    again = build.cpu_library()
    assert again == library and (again.stat().st_mtime_ns, again.stat().st_ino) == (built.st_mtime_ns, built.st_ino)


def test_a_library_that_is_there_needs_a_compiler_for_its_name_alone(cache, small, tmp_path, monkeypatch):
    """Compiling costs seconds, a look at the version milliseconds."""
    log = tmp_path / "log"
    monkeypatch.setenv("CXX", compiler(tmp_path, f'echo "$1" >> {log}; exec $REAL "$@"'))
    build.cpu_library()
    first = log.read_text().splitlines()
    build.cpu_library()
    assert log.read_text().splitlines() == [*first, "--version"] and len(first) == 2


def test_the_cache_may_be_relative_and_the_library_is_found_from_elsewhere(small, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISTIL_CACHE", "here")
    library = build.cpu_library()
    monkeypatch.chdir("/")
    assert library.exists() and library.parent == (tmp_path / "here" / "kernels").resolve()


@pytest.mark.parametrize("name", [*build.CPU_SOURCES, "loss.h", "cpu.h"])
def test_any_source_that_changes_changes_the_name(name, tmp_path, monkeypatch):
    """Headers too, which no compiler's command line names."""
    sources = tmp_path / "csrc"
    shutil.copytree(build.SOURCES, sources)
    monkeypatch.setattr(build, "SOURCES", sources)
    monkeypatch.setenv("CXX", compiler(tmp_path, "exit 0"))  # the name is what is wanted
    before = build.cpu_library()
    with (sources / name).open("a") as file:
        file.write("// changed\n")
    assert build.cpu_library() != before


def test_machines_and_compilers_that_differ_have_libraries_of_their_own(cache, small, tmp_path, monkeypatch):
    """A home folder may be shared by nodes of several kinds."""
    libraries = [build.cpu_library(), build.cpu_library("x86-64" if os.uname().machine == "x86_64" else "armv8-a")]
    monkeypatch.setenv("CXX", compiler(tmp_path, '[ "$1" = --version ] && echo 99.9 && exit; exec $REAL "$@"'))
    libraries.append(build.cpu_library())
    monkeypatch.setattr(build, "_cpu", lambda: "flags: of another machine")
    libraries.append(build.cpu_library())
    assert len(set(libraries)) == 4 and len(names(cache)) == 4


def test_the_library_can_be_read_by_colleagues_who_share_the_cache(small):
    """As ``folder.building`` has it: a draft's own mode shuts them out."""
    mask = os.umask(0o022)
    try:
        assert build.cpu_library().stat().st_mode & 0o444 == 0o444
    finally:
        os.umask(mask)


# --- at once, and where nothing can be written ---------------------------------------------------------------------


def test_two_processes_at_once(cache, small, tmp_path, monkeypatch):
    """As ranks of one machine do in their first step; neither compiles before the other has begun."""
    meet = tmp_path / "meet"
    meet.mkdir()
    wait = f'touch {meet}/$$; while [ $(ls {meet} | wc -l) -lt 2 ]; do sleep 0.05; done; exec $REAL "$@"'
    monkeypatch.setenv("CXX", compiler(tmp_path, f'[ "$1" = --version ] && exec $REAL "$@"; {wait}'))
    code = "import sys, pathlib; from distil.kernels import build; build.SOURCES = pathlib.Path(sys.argv[1]);"
    command = [sys.executable, "-c", f"{code} print(build.cpu_library())", str(small)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        told = [process.communicate(timeout=60) for process in both]
    finally:
        for process in both:
            process.kill()
    assert [process.returncode for process in both] == [0, 0], told
    assert len(names(meet)) == 2 and told[0][0] == told[1][0]
    assert names(cache) == [Path(told[0][0].strip()).name] and answer(Path(told[0][0].strip())) == 42


@pytest.fixture(params=["read-only", "beneath a file"])
def unwritable(request, tmp_path, monkeypatch):
    """A cache in which nothing can be made; temporary files go to the test's own folder, which is returned."""
    place, temporary = tmp_path / "place", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    if request.param == "read-only":
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        place.mkdir(mode=0o555)
    else:
        place.write_text("a file")
    monkeypatch.setenv("DISTIL_CACHE", str(place))
    return temporary


def test_a_cache_that_cannot_be_written_still_gives_a_library(unwritable, small):
    library = build.cpu_library()
    assert library.is_relative_to(unwritable.resolve()) and answer(library) == 42
    assert names(library.parent) == [library.name]


def test_a_build_that_fails_there_leaves_nothing(unwritable, small):
    (small / "loss.cpp").write_text("no C++")
    with pytest.raises(ConfigError, match="do not compile"):
        build.cpu_library()
    assert names(unwritable) == []


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", [None, "no-such-compiler"])
def test_no_compiler(cache, wanted, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    if wanted:
        monkeypatch.setenv("CXX", wanted)
    with pytest.raises(ConfigError) as caught:
        build.cpu_library()
    said = str(caught.value)
    remedy = (
        ("no C++ compiler", "apt-get install g++") if wanted is None else ("there is no no-such-compiler", "unset CXX")
    )
    assert all(part in said for part in (*remedy, "DISTIL_LOSS=torch"))
    assert names(cache) == []


def test_a_compiler_that_fails_is_quoted_in_one_line(cache, small, tmp_path, monkeypatch):
    chatter = 'echo "In file included from here:" >&2; echo "x.cpp:1: error: xyz" >&2; echo "  more" >&2'
    monkeypatch.setenv("CXX", compiler(tmp_path, f'{chatter}; echo "y.cpp:2: error: abc" >&2; exit 1'))
    with pytest.raises(ConfigError) as caught:
        build.cpu_library()
    said = str(caught.value)
    assert "x.cpp:1: error: xyz y.cpp:2: error: abc" in said and "included" not in said and "\n" not in said
    assert str(tmp_path / "my-compiler") in said and "DISTIL_LOSS=torch" in said
    assert names(cache) == []


def test_a_compiler_that_dies_without_the_word_error_is_quoted_too(cache, small, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", compiler(tmp_path, 'echo "Killed by the kernel" >&2; exit 137'))
    with pytest.raises(ConfigError, match="Killed by the kernel"):
        build.cpu_library()
    assert names(cache) == []


def test_a_broken_source_is_named_with_its_line(cache, small):
    (small / "cosine.cpp").write_text("int f() {\n  return no_such_name;\n}\n")
    with pytest.raises(ConfigError) as caught:
        build.cpu_library()
    assert "cosine.cpp:2:" in str(caught.value) and "no_such_name" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1 and names(cache) == []


def test_a_source_that_is_mended_is_built(cache, small):
    good = (small / "loss.cpp").read_text()
    (small / "loss.cpp").write_text("no C++")
    with pytest.raises(ConfigError):
        build.cpu_library()
    (small / "loss.cpp").write_text(good)
    assert answer(build.cpu_library()) == 42


# --- the program ---------------------------------------------------------------------------------------------------


def program(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "distil.kernels.build", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_the_program_builds_the_real_sources(cache):
    done = program()
    assert done.returncode == 0, done.stderr
    built = [line.removeprefix("built ") for line in done.stdout.splitlines()]  # one more for each kind of GPU here
    assert names(cache) == sorted(Path(path).name for path in built) and done.stdout.startswith("built ")
    assert ctypes.CDLL(built[0]).loss_rows


@pytest.mark.parametrize("arguments", [["--arch", "nonsense"], ["--arch", "nonsense", "sm_90"]])
def test_the_program_refuses_an_unknown_architecture_in_one_line(cache, arguments):
    done = program(*arguments)
    assert done.returncode == 78 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and "DISTIL_LOSS=torch" in done.stderr
    try:
        nvrtc.load()
    except OSError:
        assert "no NVRTC" in done.stderr and "install torch's CUDA build" in done.stderr
    else:
        assert "do not compile for nonsense" in done.stderr
    assert names(cache) == []
