"""--compile: a run whose layers torch's compiler has made learns what the same run learns without."""

from __future__ import annotations

import pytest
from harness import must_pretrain, scalars

pytestmark = pytest.mark.faults  # no fault, but half a minute of compiling


def test_a_compiled_run_has_the_losses_of_a_plain_one(material, tmp_path):
    how = ("--recipe", material.recipe, "--max_steps", 4, "--precision", "fp32", "--log_every", 1)
    for name, more in (("plain", ()), ("compiled", ("--compile",))):
        must_pretrain(None, *how, "--output_dir", tmp_path / name, "--dropout", 0, *more)
    plain, compiled = (scalars(tmp_path / name, "loss/total") for name in ("plain", "compiled"))
    assert len(plain) == 4
    # fp32 in another order: a step's rounding of 1e-6 or so, carried on by three steps of Adam.
    assert compiled == pytest.approx(plain, rel=1e-4)
