"""Which steps are bad, and which end a run."""

from __future__ import annotations

import math

import pytest

from distil.errors import RunError
from distil.health import Health
from distil.tables import Run

NAN = {"ce": math.nan, "mlm": 2.0}
FINE = {"ce": 1.0, "mlm": 2.0}


def health(least: float | None = None, **limits: float) -> tuple[Health, list[str]]:
    return Health(Run(**limits), least), []


def test_bad_steps_in_a_row_end_the_run_and_a_good_one_between_does_not():
    watched, told = health(max_bad_steps=3)
    for step in (1, 2):
        watched.skipped(step, NAN, 1.0, told.append)
    watched.taken()
    assert not watched.in_doubt
    for step in (4, 5):
        watched.skipped(step, NAN, 1.0, told.append)
    with pytest.raises(RunError, match="3 bad steps in a row, the last one step 6: loss term ce is nan") as caught:
        watched.skipped(6, NAN, 1.0, told.append)
    assert caught.value.shared and caught.value.code == 70
    assert watched.in_doubt and watched.bad_steps == 5 and len(told) == 4 and "bad steps so far: 4" in told[-1]


def test_the_search_for_a_scale_is_not_bad_but_its_end_is():
    watched, told = health(least=1.0, max_bad_steps=2)
    for step, scale in enumerate((512.0, 64.0, 2.0)):
        watched.skipped(step, FINE, scale, told.append)
    assert told == [] and watched.bad_steps == 0
    with pytest.raises(RunError, match="the loss scale has collapsed to 1 at step 9"):
        watched.skipped(9, FINE, 1.0, told.append)


def test_a_loss_that_is_no_number_is_bad_at_any_scale():
    watched, told = health(least=1.0, max_bad_steps=1)
    with pytest.raises(RunError, match="loss term ce is nan"):
        watched.skipped(1, NAN, 65536.0, told.append)


def test_without_a_scale_infinite_gradients_are_bad():
    watched, told = health()
    watched.skipped(1, FINE, 1.0, told.append)
    assert watched.bad_steps == 1 and "its gradients are no finite numbers" in told[0]


def test_spikes_are_told_counted_and_leave_the_usual_alone():
    watched, told = health(spike_factor=3.0)
    for step, loss in enumerate([2.0] * 20 + [7.0, 7.0, 5.0, math.inf]):
        watched.reported(step, loss, told.append)
    assert watched.spikes == 2 and len(told) == 2 and "7.000, more than 3 times its usual 2.000" in told[0]
    quiet, told = health(spike_factor=0.0)
    for loss in (1.0, 1000.0):
        quiet.reported(1, loss, told.append)
    assert told == []


def test_counts_survive_a_resume():
    watched, told = health(max_bad_steps=3)
    watched.skipped(1, NAN, 1.0, told.append)
    watched.skipped(2, NAN, 1.0, told.append)
    watched.reported(2, 1.5, told.append)
    again, _ = health(max_bad_steps=3)
    again.resume(watched.counts())
    assert again.counts() == watched.counts()
    with pytest.raises(RunError, match="3 bad steps in a row"):
        again.skipped(3, NAN, 1.0, told.append)
