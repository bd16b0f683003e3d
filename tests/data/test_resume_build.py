"""Builds that are interrupted go on where they were and end in the same bytes; memory stays flat."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from letters import letters
from stores import contents

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
WORKERS = 2


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> list[str]:
    """Three files, one of them compressed: 2 MB in all, some 120 pieces of 16 kB."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = [letters(15 + i % 70, i) for i in range(20_000)]
    for i, name in enumerate("abc"):
        (folder / f"{name}.txt").write_text("\n".join(lines[i::3]) + "\n")
    subprocess.run(["gzip", str(folder / "b.txt")], check=True)
    return [str(folder / name) for name in ("a.txt", "b.txt.gz", "c.txt")]


def options(corpus: list[str], prefix: Path, **more: object) -> dict[str, object]:
    chosen = {"text": corpus, "prefix": str(prefix), "piece": 16_384, "journal": 0, "workers": WORKERS}
    return {**chosen, "heldout_fraction": 0.1, **more}


def start(chosen: dict[str, object]) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "build_driver.py"), json.dumps(chosen)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{HERE}"}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=heed_interrupts,
    )  # fmt: skip


def heed_interrupts() -> None:
    """A shell without job control has what it starts in the background ignore them, and so what that starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def finish(chosen: dict[str, object]) -> tuple[int, str]:
    """Exit code and what was said on standard error."""
    process = start(chosen)
    error = process.communicate(timeout=120)[1]
    return process.returncode, error


def journal(prefix: Path) -> dict[str, object]:
    try:
        return json.loads(Path(f"{prefix}.building/journal.json").read_text())
    except FileNotFoundError:
        return {}


def start_and_wait(chosen: dict[str, object], pieces: int, noted: bool = True) -> subprocess.Popen[str]:
    """A build that waits at piece number ``pieces`` of this try, after or just before its entry in the journal."""
    paused = Path(f"{chosen['prefix']}.paused")
    process = start({**chosen, "pause": pieces, "noted": noted})
    deadline = time.monotonic() + 60
    while not paused.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.01)
    paused.unlink()
    return process


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all have ended within some seconds."""
    return not psutil.wait_procs(processes, timeout=15)[1]


@pytest.fixture(scope="module")
def clean(corpus, tmp_path_factory) -> dict[str, dict[str, bytes]]:
    """Both stores as an uninterrupted build with one worker leaves them."""
    prefix = tmp_path_factory.mktemp("clean") / "s"
    assert finish(options(corpus, prefix, workers=1)) == (0, "")
    return both(prefix)


def both(prefix: Path) -> dict[str, dict[str, bytes]]:
    return {name: contents(f"{prefix}{name}") for name in ("", "-heldout")}


def test_killed_again_and_again_the_bytes_are_the_same(corpus, clean, tmp_path):
    draw, prefix = random.Random(7), tmp_path / "s"
    for turn in range(4):
        process = start_and_wait(options(corpus, prefix), draw.randint(2, 25), noted=turn < 2)
        family = psutil.Process(process.pid).children(recursive=True)
        if turn % 2:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()  # the main process alone: its workers are to leave by themselves
        process.communicate(timeout=30)
        assert process.returncode == -signal.SIGKILL and gone(family)
        assert [path.name for path in tmp_path.iterdir()] == ["s.building"]
        assert journal(prefix).get("piece") or journal(prefix).get("source")  # what is there is gone on from
    assert finish(options(corpus, prefix)) == (0, "")
    assert both(prefix) == clean and not Path(f"{prefix}.building").exists()


def test_an_interrupt_ends_it_in_a_line_and_it_goes_on(corpus, clean, tmp_path):
    prefix = tmp_path / "s"
    process = start_and_wait(options(corpus, prefix), 1)  # its second worker may still be starting
    family = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 130 and error == "interrupted\n" and gone(family)
    assert finish(options(corpus, prefix)) == (0, "")
    assert both(prefix) == clean


def test_a_dead_worker_is_one_error_and_it_goes_on(corpus, clean, tmp_path):
    prefix = tmp_path / "s"
    process = start_and_wait(options(corpus, prefix), 3)
    workers = [c for c in psutil.Process(process.pid).children() if "spawn_main" in " ".join(c.cmdline())]
    assert len(workers) == WORKERS
    workers[0].kill()
    Path(f"{prefix}.go").touch()
    error = process.communicate(timeout=30)[1]
    assert process.returncode == 65 and error.startswith("error: a worker process died") and error.count("\n") == 1
    assert gone(workers)
    assert finish(options(corpus, prefix)) == (0, "")
    assert both(prefix) == clean


def test_another_build_in_its_place_is_refused(corpus, clean, tmp_path):
    prefix = tmp_path / "s"
    process = start_and_wait(options(corpus, prefix), 3)
    process.kill()
    process.communicate(timeout=30)
    for change, said in (
        ({"max_length": 64}, "max_length: 512 there, 64 here"),
        ({"text": corpus[1:]}, f"input: {corpus[0]}, not {corpus[1]}"),
    ):
        code, error = finish(options(corpus, prefix, **change))
        assert code == 78 and said in error and "--overwrite" in error and error.count("\n") == 1
    assert journal(prefix)
    for broken in ("[1]", '{"source": 0}'):
        Path(f"{prefix}.building/journal.json").write_text(broken)
        code, error = finish(options(corpus, prefix))
        assert code in (65, 78) and "s.building" in error and error.count("\n") == 1
    assert finish(options(corpus, prefix, overwrite=True, workers=1))[0] == 0
    assert both(prefix) == clean


def test_more_files_may_be_added_at_the_end(corpus, clean, tmp_path):
    prefix = tmp_path / "s"
    process = start_and_wait(options(corpus[:2], prefix), 3)
    process.kill()
    process.communicate(timeout=30)
    assert finish(options(corpus, prefix)) == (0, "")
    assert both(prefix) == clean


def test_mended_input_goes_on_and_changed_input_does_not(tmp_path):
    texts = [tmp_path / f"{i}.txt" for i in range(3)]
    for i, path in enumerate(texts):
        path.write_text("\n".join(letters(20, 1000 * i + j) for j in range(800)) + "\n")
    good = texts[2].read_bytes()
    names, prefix = list(map(str, texts)), tmp_path / "s"
    assert finish(options(names, tmp_path / "clean")) == (0, "")
    texts[2].write_bytes(good + b"na\xefve\n")
    code, error = finish(options(names, prefix))
    assert code == 65 and "2.txt: " in error and "is not UTF-8" in error
    assert journal(prefix)["source"] == 2  # two files, and much of the third, are kept
    os.utime(texts[0], (1, 1))
    code, error = finish(options(names, prefix))
    assert code == 78 and "0.txt, which has changed" in error
    was = journal(prefix)["states"][0][-1]
    os.utime(texts[0], ns=(was, was))
    # The damaged file has been begun, so mending it is a change, too: its part is dropped by whoever says so.
    texts[2].write_bytes(good)
    code, error = finish(options(names, prefix))
    assert code == 78 and "2.txt, which has changed" in error
    assert finish(options(names, prefix, overwrite=True)) == (0, "")
    assert both(prefix) == both(tmp_path / "clean")


def peak_mib(chosen: dict[str, object]) -> dict[str, float]:
    """Peak resident MiB of the main process and of the largest worker."""
    process, peaks = start(chosen), {"main": 0.0, "worker": 0.0}
    main = psutil.Process(process.pid)
    while process.poll() is None:
        for one, name in [(main, "main"), *((child, "worker") for child in main.children())]:
            try:
                peaks[name] = max(peaks[name], one.memory_info().rss / 2**20)
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.01)
    assert process.communicate()[1] == "" and process.returncode == 0
    return peaks


@pytest.mark.slow
def test_memory_is_flat_whatever_the_corpus(tmp_path):
    # 7 and 40 MB in pieces of 4 MiB: 2 and 10 of them. What is in hand, two pieces a worker, is there in
    # both; sequences take 4 bytes on disk and none in memory. 40 MiB are for what the allocator keeps. To hold the ids
    # of the larger corpus alone, 20 M of them, would take 40 MB as an array and 160 MB as a list.
    lines = [letters(30 + i % 50, i) for i in range(60_000)]
    (tmp_path / "small.txt").write_text("\n".join(lines) + "\n")
    (tmp_path / "large.txt").write_text("\n".join(lines * 6) + "\n")
    peaks = {}
    for name in ("small", "large"):
        chosen = options([str(tmp_path / f"{name}.txt")], tmp_path / name, piece=1 << 22, journal=1)
        peaks[name] = peak_mib(chosen)
    for who in ("main", "worker"):
        assert peaks["large"][who] - peaks["small"][who] < 40, peaks
        assert peaks["large"][who] < 600, peaks  # with Python, numpy and, in the main process, transformers
