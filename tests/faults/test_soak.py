"""Killed at random times, a run of two ranks ends as if it had not been; `make soak` does it for many more seeds."""

from __future__ import annotations

import pytest
import soak

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def whole(material, tmp_path_factory):
    return soak.reference(material, tmp_path_factory.mktemp("soak") / "whole")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_killed_at_random_times_it_is_the_run_that_nothing_happened_to(material, whole, tmp_path, seed):
    verdict = soak.soak(seed, material, tmp_path / "run", whole)
    assert verdict.kills and not verdict.differences, verdict
