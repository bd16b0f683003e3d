"""Learning rate of a step: linear warm-up, then linear decay to nothing, a pure function of the step's number."""

from __future__ import annotations

from distil.shares import ceil_share


def learning_rate(step: int, total: int, peak: float, warmup_fraction: float) -> float:
    """Rate of optimiser step ``step`` (from 0) of ``total``.

    Warm-up takes ceil(warmup_fraction x total) steps and its last one has the peak. Step 0 already learns, where a
    schedule that starts at 0 would throw its batch away; the decay would reach 0 at step ``total``, which never runs.
    """
    warmup = ceil_share(total, warmup_fraction)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * max(0, total - step) / (total - warmup)
