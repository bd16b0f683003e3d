"""How a program ends: the exit code of each kind of error and what stands on standard error."""

from __future__ import annotations

import subprocess
import sys

import pytest

from distil.errors import ConfigError, DataError, one_line, run


@pytest.fixture(autouse=True)
def first_rank(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)


def raising(error: BaseException):
    def main() -> None:
        raise error

    return main


# The numbers of sysexits(3) and, for an interrupt, of the shell: schedulers act on them, so they are a contract.
@pytest.mark.parametrize(
    ("error", "code"),
    [(DataError("m"), 65), (RuntimeError("m"), 70), (ConfigError("m"), 78), (KeyboardInterrupt(), 130)],
)
def test_exit_code_of_each_error(error, code, capsys):
    assert run(raising(error)) == code
    assert capsys.readouterr().out == ""  # standard output is for results


@pytest.mark.parametrize("result", [0, 3, None])
def test_a_program_that_ends_well_keeps_its_own_code(result, capsys):
    assert run(lambda: result) == (result or 0)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("kind", [DataError, ConfigError])
def test_a_users_mistake_is_one_line(kind, capsys):
    run(raising(kind("first\n  second\tthird\r\n")))
    assert capsys.readouterr().err == "error: first second third\n"


@pytest.mark.parametrize("kind", [DataError, ConfigError])
@pytest.mark.parametrize(("rank", "shared", "said"), [
    ("0", True, "error: m\n"), ("0", False, "error: m\n"), ("5", True, ""), ("5", False, "error: rank 5: m\n"),
])  # fmt: skip
def test_one_voice_for_a_mistake_that_all_ranks_share(kind, rank, shared, said, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr("distil.errors.SECONDS_FOR_OTHERS", 0)
    mistake = kind("m")
    mistake.shared = shared
    assert run(raising(mistake)) == {DataError: 65, ConfigError: 78}[kind]
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("rank", ["0", "5"])
def test_a_defect_keeps_its_traceback_on_every_rank(rank, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)

    def a_function_that_breaks() -> None:
        {}["gone\nfor good"]

    assert run(a_function_that_breaks) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert any("a_function_that_breaks" in line for line in lines)
    assert lines[-1].startswith(f"error: rank {rank}: KeyError: ") and "for good" in lines[-1]


def test_a_subclass_of_a_users_mistake_is_one_too(capsys):
    class Special(DataError):
        pass

    assert run(raising(Special("m"))) == 65
    assert capsys.readouterr().err == "error: m\n"


def test_an_interrupt_is_one_word_of_one_rank(monkeypatch, capsys):
    assert run(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"
    monkeypatch.setenv("RANK", "1")
    assert run(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == ""


def test_an_exit_of_the_program_itself_passes():
    with pytest.raises(SystemExit) as caught:  # what --help does
        run(raising(SystemExit(0)))
    assert caught.value.code == 0


def test_one_line_takes_any_object():
    assert one_line(OSError("a\n b")) == "a b"
    assert one_line("  plain  ") == "plain"


@pytest.mark.parametrize("code", [0, 78])
def test_leaving_writes_what_was_said_and_skips_the_teardown(code):
    """In which threads of libraries abort: here a handler stands for them."""
    program = f"""
import atexit, os
from distil import errors
atexit.register(os.abort)
print("said", end="")
errors.leave({code})
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stdout, result.stderr) == (code, "said", "")


def test_a_closed_pipe_ends_a_program_quietly():
    code = "import sys; from distil.errors import run\nsys.exit(run(lambda: [print(i) for i in range(10**6)] and None))"
    program = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert program.stdout.readline() == "0\n"
    program.stdout.close()  # as head does
    assert program.stderr.read() == "" and program.wait(timeout=60) == 141
