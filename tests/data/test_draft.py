"""Builds that do not end well: killed anywhere, two at once, a full disk, no permission. Nothing half is a store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from stores import FILES, append, build, contents, killed, origin, toy

from distil.data.draft import Draft
from distil.data.store import Store
from distil.data.store_writer import StoreWriter
from distil.errors import DataError

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
PRELUDE = """
import os, signal, sys
sys.path[:0] = {path!r}
from stores import append, build, origin, toy
from distil.data.draft import Draft
from distil.data.store_writer import StoreWriter
from distil.errors import DataError
"""


def child(code: str, **values: object) -> subprocess.CompletedProcess[str]:
    code = (PRELUDE + code).format(path=[str(HERE), str(ROOT)], **values)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, cwd=ROOT)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_build_killed_at_any_step_leaves_a_store_or_none(tmp_path, overwrite):
    clean = build(tmp_path / "clean", toy())
    prefix = tmp_path / "s"
    wanted, old = contents(tmp_path / "clean"), None
    outcomes = []
    for after in range(100):
        if overwrite:
            build(prefix, toy(7), overwrite=True)
            old = contents(prefix)
        if not (died := killed(lambda: build(prefix, toy(), overwrite=overwrite), after)):
            break
        try:
            Store.open(prefix).verify()
            outcomes.append("old" if contents(prefix) == old else "new")
            assert outcomes[-1] == "old" or contents(prefix) == wanted
        except DataError as error:
            assert "no token store" in str(error) or "has not ended" in str(error), error
            outcomes.append("none")
        # The same again, whatever is there, makes the same bytes and clears up.
        build(prefix, toy(), overwrite=True)
        assert contents(prefix) == wanted
        assert not Path(f"{prefix}.building").exists()
        for suffix in FILES:
            os.remove(f"{prefix}{suffix}")
    assert not died and len(outcomes) > 20
    assert set(outcomes) == ({"old", "none", "new"} if overwrite else {"none", "new"})
    assert clean.fingerprint == Store.open(prefix).fingerprint


def test_a_sealed_build_is_published_by_the_next_try(tmp_path):
    # Killed between the files of a publication: the journal says sealed, some files are in place, some are not.
    prefix = tmp_path / "s"
    build(tmp_path / "clean", toy())
    for moved in range(len(FILES) + 1):
        with Draft({"store": str(prefix)}) as draft:
            writer = StoreWriter(draft, "store", origin())
            append(writer, toy())
            writer.seal()
            draft.write_journal({"sealed": True})
        for suffix in FILES[:moved]:
            os.replace(draft.path("store" + suffix), f"{prefix}{suffix}")
        if moved < len(FILES):
            with pytest.raises(DataError, match="its build has not ended"):
                Store.open(prefix)
        with Draft({"store": str(prefix)}) as draft:
            assert draft.sealed
            draft.publish()
        assert contents(prefix) == contents(tmp_path / "clean") and not draft.folder.exists()
        for suffix in FILES:
            os.remove(f"{prefix}{suffix}")


def test_no_old_store_is_left_beside_what_another_build_held_out(tmp_path, monkeypatch):
    outputs = {"store": str(tmp_path / "s"), "heldout": str(tmp_path / "s-heldout")}

    def publish(count: int) -> None:
        with Draft(outputs, overwrite=True) as draft:
            for name in outputs:
                writer = StoreWriter(draft, name, origin())
                append(writer, toy(count))
                writer.seal()
            draft.publish()

    publish(5)
    real, calls = os.replace, 0
    for stop in range(1, 11):
        calls = 0

        def interrupted(source: str, target: str, stop: int = stop) -> None:
            nonlocal calls
            calls += ".building" not in str(target)
            if calls == stop:
                raise KeyboardInterrupt
            real(source, target)

        monkeypatch.setattr(os, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            publish(7)
        monkeypatch.setattr(os, "replace", real)
        with pytest.raises(DataError):
            Store.open(outputs["store"])  # so that nothing trains on it
        publish(7)
        assert len(Store.open(outputs["store"])) == len(Store.open(outputs["heldout"])) == 7


# --- two at once ---------------------------------------------------------------------------------------------------

HOLDS = """
with Draft({{"store": {prefix!r}}}) as draft:
    writer = StoreWriter(draft, "store", origin())
    append(writer, toy())
    print("holds", flush=True)
    sys.stdin.readline()
    writer.seal()
    draft.publish()
"""


def test_of_two_builders_the_second_is_told_who_builds(tmp_path):
    prefix = str(tmp_path / "s")
    code = (PRELUDE + HOLDS).format(path=[str(HERE), str(ROOT)], prefix=prefix)
    first = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    try:
        assert first.stdout.readline() == "holds\n"
        for overwrite in (False, True):
            with pytest.raises(DataError, match=f"process {first.pid} on .* is building here; wait for it"):
                build(prefix, toy(3), overwrite=overwrite)
        first.communicate("\n", timeout=60)
    finally:
        first.kill()
    assert first.returncode == 0
    build(tmp_path / "clean", toy())
    assert contents(prefix) == contents(tmp_path / "clean")
    with pytest.raises(DataError, match="exists already"):
        build(prefix, toy(3))


def test_a_dead_builder_holds_nothing(tmp_path):
    ended = child(HOLDS.replace("sys.stdin.readline()", "os.kill(os.getpid(), signal.SIGKILL)"), prefix=f"{tmp_path}/s")
    assert ended.returncode == -signal.SIGKILL and Path(f"{tmp_path}/s.building/store.bin").exists()
    build(tmp_path / "s", toy(3))
    assert len(Store.open(tmp_path / "s")) == 3


def test_work_in_a_draft_is_not_dropped_by_another_command(tmp_path):
    with pytest.raises(KeyError), Draft({"store": str(tmp_path / "s")}) as draft:
        draft.write_journal({"source": 1})
        raise KeyError
    assert draft.folder.exists()
    with Draft({"store": str(tmp_path / "s")}) as draft:
        with pytest.raises(DataError, match="holds an unfinished build"):
            draft.begin_anew(overwrite=False)
        draft.begin_anew(overwrite=True)
        assert draft.read_journal() is None
    (tmp_path / "t.building").mkdir()
    (tmp_path / "t.building" / "journal.json").write_text("{")
    with pytest.raises(DataError, match=r"journal\.json: cannot be read"), Draft({"store": str(tmp_path / "t")}):
        pass


# --- the disk says no ----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs root and the right to mount a small tmpfs")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("spare", [0, 10_000, 60_000, 125_000])
def test_a_full_disk_is_one_error_and_no_store(small_disk, tmp_path, spare):
    # 128 kB of ids and 35 kB more at the end: full while appending, or at one of the files that sealing writes.
    sequences = toy(2000)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(256 * 1024 - 4096 - spare))
    with pytest.raises(DataError, match=r"No space left.*free some space and run the same command again"):
        build(small_disk / "s", sequences)
    with pytest.raises(DataError):
        Store.open(small_disk / "s")
    assert not list(small_disk.glob("s.*[!g]"))  # nothing under a store's name
    filler.unlink()
    build(small_disk / "s", sequences)
    build(tmp_path / "clean", sequences)
    assert contents(small_disk / "s") == contents(tmp_path / "clean")


def test_no_permission_is_one_error(tmp_path):
    (tmp_path / "closed").mkdir(mode=0o555)
    tmp_path.chmod(0o755)
    sequences = toy()
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # root may write anywhere
    try:
        with pytest.raises(DataError, match=r"closed/s\.building: cannot write \(Permission denied\); choose another"):
            build(tmp_path / "closed" / "s", sequences)
    finally:
        if root:
            os.seteuid(0)
    assert os.listdir(tmp_path / "closed") == []


@pytest.mark.parametrize(("closed", "named"), [("d/s.bin", r"d/s\.bin"), ("d", r"d/s\.json")])
def test_no_permission_to_read_is_one_error(tmp_path, closed, named):
    (tmp_path / "d").mkdir()
    build(tmp_path / "d" / "s", toy())
    for parent in (tmp_path / "d", tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    (tmp_path / closed).chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(DataError, match=rf"{named}: cannot read \(Permission denied\); check its permissions"):
            Store.open(tmp_path / "d" / "s")
    finally:
        if root:
            os.seteuid(0)
        (tmp_path / closed).chmod(0o755)


def test_a_place_within_a_file_is_one_error(tmp_path):
    (tmp_path / "f").touch()
    with pytest.raises(DataError, match=r"f/s\.building: cannot write \(Not a directory\); choose another --out"):
        build(tmp_path / "f" / "s", toy())
