"""What stops the runs of a process while nothing is to be saved."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from distil.errors import Stopped
from distil.guard import Guard
from distil.stopping import StopRequest

ALONE = SimpleNamespace(first=True, most=list, gather=lambda value: [value])


def test_nobody_has_asked(tmp_path):
    guard = Guard(StopRequest(), None, (tmp_path / "stop",))
    guard.watch(tmp_path / "run" / "stop")
    guard.pass_on(ALONE)


@pytest.mark.parametrize("name", ["stop", "run/stop"])
def test_a_file_for_one_run_or_for_all_is_obeyed_once(tmp_path, name):
    (tmp_path / "run").mkdir()
    files = (tmp_path / "run" / "stop", tmp_path / "stop")
    (tmp_path / name).touch()
    guard = Guard(StopRequest(), None, files[1:])
    guard.watch(files[0])
    with pytest.raises(Stopped, match=f"{name} is there") as caught:
        guard.pass_on(ALONE)
    assert caught.value.code == 75
    assert not any(path.exists() for path in files)  # or the same command could not go on


def test_other_files_may_take_the_place_of_the_first(tmp_path):
    guard = Guard(StopRequest(), None, (tmp_path / "first",))
    (tmp_path / "first").touch()
    guard = guard.stopped_by(tmp_path / "second")
    guard.pass_on(ALONE)
    (tmp_path / "second").touch()
    guard.stop._looked = 0.0
    with pytest.raises(Stopped, match="second is there"):
        guard.pass_on(ALONE)
