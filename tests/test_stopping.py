"""Being asked to stop, by everything that can ask."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

import pytest

from distil import stopping
from distil.stopping import STOP_FILE, StopRequest

PROGRAM = """
import os, signal, sys, time
from distil.stopping import StopRequest
stop = StopRequest()
stop.listen()
print("ready", flush=True)
try:
    while True:
        time.sleep(0.05)
        if stop.asked(True) and "twice" not in sys.argv:
            print(stop.why, flush=True)
            sys.exit(stop.code)
except KeyboardInterrupt:
    sys.exit(99)
"""


@pytest.mark.parametrize(
    ("number", "said", "code"),
    [
        (signal.SIGUSR1, "SIGUSR1 received", 75),
        (signal.SIGTERM, "SIGTERM received", 75),
        (signal.SIGINT, "interrupted", 130),
    ],
)
def test_signals(number, said, code):
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline().strip() == said and process.wait(10) == code


def test_a_second_interrupt_leaves_at_once():
    with subprocess.Popen([sys.executable, "-c", PROGRAM, "twice"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 99


def test_an_interrupt_after_another_reason_still_saves():
    """Somebody who sees nothing happen after SIGTERM presses Ctrl-C once."""
    stop = StopRequest()
    stop.ask("deepspeed has gone")
    stop._on_signal(signal.SIGINT, None)
    assert stop.asked(False) == 75
    with pytest.raises(KeyboardInterrupt):
        stop._on_signal(signal.SIGINT, None)


def test_files_are_looked_for_by_the_first_rank_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "SECONDS_BETWEEN_LOOKS", 0.0)
    stop = StopRequest()
    stop.files = (tmp_path / "stop",)
    assert stop.asked(True) == 0
    (tmp_path / "stop").touch()
    assert stop.asked(False) == 0 and stop.asked(True) == 75 and str(tmp_path / "stop") in stop.why
    stop.obeyed()
    assert not (tmp_path / "stop").exists()


def test_the_file_of_a_batch_script_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "SECONDS_BETWEEN_LOOKS", 0.0)
    monkeypatch.setenv(STOP_FILE, str(tmp_path / "job-7"))
    stop = StopRequest()
    assert stop.asked(True) == 0
    (tmp_path / "job-7").touch()
    assert stop.asked(True) == 75
    stop.obeyed()
    assert (tmp_path / "job-7").exists()


def test_the_clock():
    assert StopRequest(hours=1000.0).asked(True) == 0
    stop = StopRequest(hours=1e-9)
    assert stop.asked(True) == 75 and stop.why == "--max_hours 1e-09 are over"


def test_the_first_reason_stays():
    stop = StopRequest()
    stop.ask("one", 130)
    stop.ask("two")
    assert (stop.why, stop.asked(False)) == ("one", 130)


def test_signals_are_noted_where_a_thread_can_see_them():
    """The main thread may be in a long call, so the heartbeat's thread is told by the file descriptor."""
    before = {n: signal.getsignal(n) for n in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)}
    stop = StopRequest()
    stop.listen()
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert select.select([stop.noted], [], [], 5)[0] == [stop.noted]
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
