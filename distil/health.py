"""When numbers go wrong: which step is bad, what is said of it, and when a run must not go on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from distil.errors import RunError, by_all
from distil.tables import Run


class Health:
    """Follows the steps of a run. The same on every rank, being fed with what all ranks share.

    A step whose gradients are no finite numbers is left out by the engine, so weights stay finite. It is *bad*, unless
    it was fp16's scale that was too large. ``max_bad_steps`` bad ones in a row end the run, and so does an fp16 scale
    that has come down to its least value.
    """

    def __init__(self, limits: Run, least_scale: float | None) -> None:
        self._limits, self._least_scale = limits, least_scale
        self._in_a_row = 0
        self._usual: float | None = None  # running mean of the loss
        self.bad_steps = 0
        self.spikes = 0

    @property
    def in_doubt(self) -> bool:
        """Whether the last step was a bad one."""
        return self._in_a_row > 0

    def counts(self) -> dict[str, Any]:
        """What a resumed run must know; plain values."""
        return {"bad_steps": self.bad_steps, "in_a_row": self._in_a_row, "spikes": self.spikes, "usual": self._usual}

    def resume(self, counts: Mapping[str, Any]) -> None:
        """Go on from what an earlier process counted."""
        self.bad_steps, self._in_a_row = counts["bad_steps"], counts["in_a_row"]
        self.spikes, self._usual = counts["spikes"], counts["usual"]

    def skipped(self, step: int, terms: Mapping[str, float], scale: float, tell: Callable[[str], None]) -> None:
        """Judge a step that was left out, by its loss terms. Raises RunError where the run must end."""
        lost = [f"{name} is {value:g}" for name, value in terms.items() if not math.isfinite(value)]
        if not lost and self._least_scale is not None:
            if scale <= self._least_scale:
                raise by_all(
                    RunError(
                        f"the loss scale has collapsed to {scale:g} at step {step}: gradients overflow fp16 at any "
                        "scale; use bf16 or fp32 (--precision), or a lower lr; the newest checkpoint is from before"
                    )
                )
            return
        self.bad_steps += 1
        self._in_a_row += 1
        what = f"loss term {', '.join(lost)}" if lost else "its gradients are no finite numbers"
        if self._in_a_row >= self._limits.max_bad_steps:
            raise by_all(
                RunError(
                    f"{self._in_a_row} bad steps in a row, the last one step {step}: {what}; a lower lr, fp32, or a "
                    "look at the teacher may help; weights and checkpoints are finite"
                )
            )
        tell(f"step {step} is left out: {what} (bad steps so far: {self.bad_steps})")

    def taken(self) -> None:
        """A step was taken: bad ones are no longer in a row."""
        self._in_a_row = 0

    def reported(self, step: int, loss: float, tell: Callable[[str], None]) -> None:
        """Hold a reported loss against the usual; a spike is told and counted; clipping bounds its step."""
        if not math.isfinite(loss):
            return
        factor = self._limits.spike_factor
        if factor and self._usual is not None and loss > factor * self._usual:
            self.spikes += 1
            tell(f"step {step}: the loss is {loss:.3f}, more than {factor:g} times its usual {self._usual:.3f}")
            return
        self._usual = loss if self._usual is None else 0.9 * self._usual + 0.1 * loss
