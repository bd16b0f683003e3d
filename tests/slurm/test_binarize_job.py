"""The batch script of binarising, submitted to a real SLURM."""

from __future__ import annotations

from pathlib import Path

import pytest
from jobs import Site

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def test_binarize_job_builds_what_the_program_builds(site: Site, tmp_path: Path) -> None:
    text, log = tmp_path / "a text.txt", tmp_path / "log"
    text.write_bytes(site.material.text.read_bytes())
    out = tmp_path / "store"
    arguments = ["--text", text, "--tokenizer", site.material.teacher, "--max_length", 32, "--out", out]
    options: list[object] = ["--cpus-per-task=2"]
    job = site.submit("slurm/binarize.sh", options, [*arguments, "--heldout_fraction", 0.1], log)
    ended = site.cluster.ended(job, 180)
    assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), log.read_text()
    for suffix in (".bin", ".idx", "-heldout.bin"):
        assert Path(f"{out}{suffix}").read_bytes() == Path(f"{site.material.store}{suffix}").read_bytes()
