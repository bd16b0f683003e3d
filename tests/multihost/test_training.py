"""One job on two hosts, by the documented command over pdsh and ssh."""

from __future__ import annotations

import harness
import pytest

pytestmark = [pytest.mark.multihost, pytest.mark.slow]


def test_two_hosts_compute_what_two_ranks_of_one_machine_do(hosts, material, local, tmp_path):
    output = tmp_path / "run"
    result = hosts.run(*hosts.training(output, material.recipe, "--max_steps", 20))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    losses = harness.scalars(output, "loss/total")
    assert len(losses) == 20 and losses == harness.scalars(local, "loss/total")
    assert not hosts.one.processes() and not hosts.two.processes()
