"""One cluster, one folder to submit from and one uninterrupted run for all tests of the batch scripts."""

from __future__ import annotations

from collections.abc import Iterator

import cluster as slurm
import pytest
from harness import ROOT, cannot, make_material, must_pretrain
from jobs import STEPS, Site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if why := slurm.missing():
        cannot(why)
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("slurm", "launch", "ds_config"):
        (checkout / name).symlink_to(ROOT / name)
    folder = tmp_path_factory.mktemp("material")
    with slurm.cluster() as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # sums come out alike with as many threads; a rank alone would take all
        made = Site(running, checkout, make_material(folder), folder / "whole")
        must_pretrain(2, "--deepspeed", "ds_config/zero1.json", *made.arguments(made.whole, save_every=STEPS))
        yield made


@pytest.fixture(autouse=True)
def own_jobs(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a job to the next one."""
    yield
    if "site" in request.fixturenames:
        request.getfixturevalue("site").cluster.cancel_all()
