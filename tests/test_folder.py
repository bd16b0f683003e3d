"""A folder that is whole or absent, whatever happens while it is built."""

from __future__ import annotations

import stat

import pytest

from distil.folder import building


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def filled(folder, text: str):
    folder.mkdir(parents=True)
    (folder / "file").write_text(text)
    return folder


def test_the_folder_appears_only_when_whole(tmp_path):
    target = tmp_path / "a" / "b" / "made"  # parents are made too
    with building(target) as draft:
        (draft / "file").write_text("text")
        assert not target.exists()
        assert draft.parent == target.parent  # one file system, so that the last rename is atomic
    assert (target / "file").read_text() == "text"
    assert names(target.parent) == ["made"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o755  # mkdtemp's own 0o700 would shut colleagues out


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_after_an_error_there_is_nothing(tmp_path, error):
    with pytest.raises(type(error)), building(tmp_path / "made") as draft:
        (draft / "file").write_text("half")
        (draft / "sub").mkdir()
        raise error
    assert names(tmp_path) == []


def test_an_existing_folder_is_kept(tmp_path):
    target = filled(tmp_path / "made", "old")
    with pytest.raises(OSError), building(target) as draft:
        (draft / "file").write_text("new")
    assert (target / "file").read_text() == "old"
    assert names(tmp_path) == ["made"]


def test_replacing_leaves_only_the_new_one(tmp_path):
    target = filled(tmp_path / "made", "old")
    (target / "only-old").write_text("")
    with building(target, replace=True) as draft:
        (draft / "file").write_text("new")
        assert (target / "file").read_text() == "old"
    assert names(target) == ["file"] and (target / "file").read_text() == "new"
    assert names(tmp_path) == ["made"]


def test_replacing_nothing_is_building(tmp_path):
    with building(tmp_path / "made", replace=True) as draft:
        (draft / "file").write_text("new")
    assert names(tmp_path) == ["made"] and names(tmp_path / "made") == ["file"]


def test_a_failed_replacement_keeps_the_old_one(tmp_path):
    target = filled(tmp_path / "made", "old")
    with pytest.raises(ValueError), building(target, replace=True) as draft:
        (draft / "file").write_text("new")
        raise ValueError
    assert (target / "file").read_text() == "old"
    assert names(tmp_path) == ["made"]


def test_a_replacement_that_fails_at_the_last_rename_brings_the_old_one_back(tmp_path):
    target = filled(tmp_path / "made", "old")
    with pytest.raises(FileNotFoundError), building(target, replace=True) as draft:
        draft.rmdir()  # the old folder is moved aside before this is noticed
    assert (target / "file").read_text() == "old"
    assert names(tmp_path) == ["made"]


def test_two_builders_do_not_meet(tmp_path):
    with building(tmp_path / "made", replace=True) as one:
        with building(tmp_path / "made", replace=True) as two:
            assert one != two
            (two / "file").write_text("two")
        (one / "file").write_text("one")
    assert (tmp_path / "made" / "file").read_text() == "one"
    assert names(tmp_path) == ["made"]


def test_an_existing_folder_is_never_taken_over(tmp_path):
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError), building(tmp_path / "there"):
        pass


def test_a_file_is_not_replaced_by_a_folder(tmp_path):
    (tmp_path / "there").write_text("mine")
    with pytest.raises(FileExistsError), building(tmp_path / "there", replace=True):
        pass
    assert (tmp_path / "there").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
