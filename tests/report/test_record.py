"""What a run left is read whole; what is missing is missing, and what is damaged is named."""

from __future__ import annotations

import json
from datetime import datetime

import numpy as np
import pytest
from left import PLAN, RESULTS, leave, report

from distil import results, rundir
from distil.errors import DataError
from distil.report import record
from distil.report.record import read


def test_files_are_named_as_they_are_written():
    assert (record.RUN, record.RESULTS, record.AFTER) == (rundir.RUN, results.RESULTS, results.AFTER)


def test_a_run_is_read_with_its_curves_and_texts(tmp_path):
    found = read(report(leave(tmp_path), range(1, 21), {"loss/total": lambda s: 9 - s / 4, "health/bad": lambda s: 0}))
    assert list(found.curves) == ["loss/total", "health/bad"]
    assert found.curves["loss/total"].steps.tolist() == list(range(1, 21))
    assert found.curves["loss/total"].values[[0, -1]].tolist() == [8.75, 4.0]
    assert found.texts["plan"] == PLAN and found.settings("versions")["device"] == "a machine"
    assert found.plan["text"].splitlines()[1].startswith("300 sequences")
    assert (found.step, found.planned, found.result("predicted")) == (20, 20, 400)
    assert list(found.rows()) == ["teacher", "student before", "student after"]


def test_of_a_resumed_run_what_was_done_anew_counts_once(tmp_path):
    run = report(leave(tmp_path), range(1, 16), {"loss/total": lambda s: 100 + s, "rare/only": lambda s: s})
    for file in (run / "tensorboard").glob("events*"):  # a process that was killed later than it was saved
        file.rename(file.with_name(file.name.replace("events.out.tfevents.", "events.out.tfevents.0")))
    found = read(report(run, range(11, 21), {"loss/total": lambda s: 200 + s}))
    curve = found.curves["loss/total"]
    assert curve.steps.tolist() == list(range(1, 21))
    assert curve.values.tolist() == [100 + s for s in range(1, 11)] + [200 + s for s in range(11, 21)]
    assert found.curves["rare/only"].steps.tolist() == list(range(1, 11))
    assert len(found.sessions) == 2 and found.sessions[0][1] <= found.sessions[1][0] <= datetime.now().timestamp()


def test_the_end_of_a_killed_runs_file_may_be_cut(tmp_path, capfd):
    run = report(leave(tmp_path, results=None), range(1, 21), {"loss/total": float})
    file = next((run / "tensorboard").glob("events*"))
    file.write_bytes(file.read_bytes()[:-30])
    assert read(run).curves["loss/total"].steps.tolist() == list(range(1, 20))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("at", [0, 4, 9, 13, -5])  # of a record: its length, the checksum of that, its data, theirs
def test_a_record_that_is_spoilt_is_noticed(tmp_path, capfd, at):
    run = report(leave(tmp_path), range(1, 21), {"loss/total": float})
    file = next((run / "tensorboard").glob("events*"))
    data = bytearray(file.read_bytes())
    assert read(run).damaged == ()
    records = starts(data)
    middle = records[len(records) // 2]
    data[(middle if at >= 0 else records[len(records) // 2 + 1]) + at] ^= 1
    file.write_bytes(data)
    found = read(run)
    assert found.damaged == (file.name,) and capfd.readouterr() == ("", "")
    steps = found.curves["loss/total"].steps.tolist()
    assert steps == list(range(1, len(steps) + 1)) and 0 < len(steps) < 20


def starts(data: bytes) -> list[int]:
    """Where the records of an event file begin."""
    found, at = [], 0
    while at < len(data):
        found.append(at)
        at += 8 + 4 + int.from_bytes(data[at : at + 8], "little") + 4
    return found


def test_a_file_that_is_cut_anywhere_is_not_damaged(tmp_path):
    run = report(leave(tmp_path), range(1, 3), {"loss/total": float})
    file = next((run / "tensorboard").glob("events*"))
    data = file.read_bytes()
    last = starts(data)[-1]
    for end in range(last, len(data) + 1):
        file.write_bytes(data[:end])
        assert read(run).damaged == (), end


def test_of_foreign_bytes_nothing_is_read(tmp_path, capfd):
    run = leave(tmp_path)
    (run / "tensorboard").mkdir()
    (run / "tensorboard" / "events.out.tfevents.1.x").write_bytes(bytes(range(256)) * 9)
    found = read(run)
    assert (found.curves, found.damaged) == ({}, ("events.out.tfevents.1.x",))
    assert capfd.readouterr() == ("", "")


def test_values_that_are_not_finite_are_kept(tmp_path):
    run = report(leave(tmp_path), range(1, 4), {"loss/total": lambda s: float("nan") if s == 2 else s})
    assert np.isnan(read(run).curves["loss/total"].values).tolist() == [False, True, False]


def test_a_run_that_has_just_begun_has_an_identity_alone(tmp_path):
    found = read(leave(tmp_path, results=None))
    assert (found.curves, found.texts, found.sessions, found.step, found.planned) == ({}, {}, (), 0, None)
    assert found.rows() == {} and found.seconds == 0


def test_a_plan_and_settings_of_another_form_are_no_obstacle(tmp_path):
    run = report(leave(tmp_path), range(1, 2), {"a": float}, {"plan": "\n  \nno columns", "versions": "[1]"})
    found = read(run)
    assert (found.plan, found.planned, found.settings("versions"), found.settings("other")) == ({}, None, {}, {})


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"rows": {}}', '{"rows": [3]}', '{"rows": null}', "\udcff"])
def test_damaged_results_are_named(tmp_path, text):
    (leave(tmp_path) / "results.json").write_text(text, errors="surrogateescape")
    with pytest.raises(DataError, match=r"results\.json cannot be read .*; remove it to measure again"):
        read(tmp_path)


def test_a_damaged_identity_is_named(tmp_path):
    (leave(tmp_path) / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run\.json cannot be read"):
        read(tmp_path)


def test_what_is_no_run_is_refused_with_the_runs_in_it(tmp_path):
    with pytest.raises(DataError, match="no folder .*/none"):
        read(tmp_path / "none")
    with pytest.raises(DataError, match=r"is no run of ours: it has no run\.json$"):
        read(tmp_path)
    leave(tmp_path / "first"), leave(tmp_path / "second")
    with pytest.raises(DataError, match=r"it holds runs, give one of them: first, second$"):
        read(tmp_path)
    for name in ("sst2/plain-seed1", "mnli/teacher-seed1"):
        leave(tmp_path / "suite" / name)
    two_down = "it holds runs two levels down, give one of them: mnli/teacher-seed1, sst2/plain-seed1$"
    with pytest.raises(DataError, match=two_down):
        read(tmp_path / "suite")


def test_numbers_of_other_kinds_are_no_numbers(tmp_path):
    odd = json.loads(json.dumps(RESULTS)) | {"step": True, "predicted": "many", "f1": float("nan")}
    found = read(leave(tmp_path, results=odd))
    assert (found.result("step"), found.result("predicted"), found.step) == (None, None, 0)
    assert np.isnan(found.result("f1"))
