"""The loop: steps, and between them what is reported, saved and evaluated."""

from __future__ import annotations

import time
from typing import NoReturn

import torch

from distil.checkpoint.manifest import Position
from distil.checkpoint.saving import Checkpoints
from distil.engine.heartbeat import Heartbeat
from distil.engine.ranks import Ranks
from distil.engine.wrapped import Engine
from distil.errors import Stopped, UserError
from distil.health import Health
from distil.monitor import Monitor, peak_memory_gib
from distil.schedule import learning_rate
from distil.stepping import Stepper
from distil.stopping import StopRequest
from distil.workload import Workload


class Trainer:
    """Trains from a position to the workload's last step, reporting and saving on the way.

    ``health`` judges the steps, ``stop`` may ask to end early, ``heartbeat`` is told of every micro-batch. It has spent
    so many seconds ``evaluating``.
    """

    def __init__(
        self, work: Workload, engine: Engine, ranks: Ranks, checkpoints: Checkpoints, monitor: Monitor,
        position: Position, *, health: Health, stop: StopRequest, heartbeat: Heartbeat,
    ) -> None:  # fmt: skip
        self._work, self._engine, self._ranks = work, engine, ranks
        self._checkpoints, self._monitor = checkpoints, monitor
        self._health, self._stop, self._heartbeat = health, stop, heartbeat
        self._steps = Stepper(work, engine, ranks, position, heartbeat.moved)
        self.evaluating = 0.0
        self._start_clock()

    @property
    def _at(self) -> Position:
        """Where training stands."""
        return self._steps.at

    def train(self) -> Position:
        """Run all steps that are left and save the last; returns where training ended.

        Raises Stopped, with everything saved, where that was asked for; RunError where the run must not go on.
        """
        with self._steps:
            try:
                with self._heartbeat.armed():
                    self._train()
            except UserError as error:
                if error.shared:  # a save that has begun is worth having
                    self._checkpoints.finish()
                raise
            self._checkpoints.finish()
        return self._at

    def _train(self) -> None:
        run, last = self._work.run, self._work.stop_step
        if self._at.step == 0 and self._work.judged_untrained:
            self._evaluate()
        self._start_clock()
        while self._at.step < last:
            self._between_steps()
            terms = self._judged_step()
            step = self._at.step
            if step % run.log_every == 0 or step == last:
                self._report(self._ranks.sum(terms))
            if run.eval_every and step % run.eval_every == 0 and step < last:
                self._evaluate()
            # Amid bad steps nothing is worth the place of an older checkpoint.
            if (run.save_every and step % run.save_every == 0 and not self._health.in_doubt) or step == last:
                self._save()
        with self._heartbeat.patient():
            self._checkpoints.finish()  # an evaluation may take long, or fail
        self._evaluate()  # also where an earlier process was stopped before it had

    def _between_steps(self) -> None:
        """What all ranks agree on before a step: to take a save further, or to stop."""
        code, at_work, failed = self._ranks.most((self._stop.asked(self._ranks.first), *self._checkpoints.flags()))
        self._checkpoints.go_on(at_work, failed)
        if code:
            self._stop_here(code)

    def _between_batches(self) -> None:
        """What all ranks agree on after a batch of an evaluation: to stop."""
        self._heartbeat.moved()
        if code := self._ranks.most([self._stop.asked(self._ranks.first)])[0]:
            self._stop_here(code)

    def _stop_here(self, code: int) -> NoReturn:
        why = next(why for why in self._ranks.gather(self._stop.why) if why is not None)
        with self._heartbeat.patient():
            self._checkpoints.finish()
            if self._checkpoints.newest != self._at and self._at.step:
                self._save()
                self._checkpoints.finish()
        if self._ranks.first:
            self._stop.obeyed()
        where = f"saved at step {self._at.step}" if self._at.step else "before the first step"
        raise Stopped(f"{why}; {where}, the same command resumes", code)

    def _save(self) -> None:
        self._monitor.flush()
        with self._heartbeat.patient():
            self._checkpoints.begin(self._engine.state, self._at, self._health.counts())
        self._start_clock()

    def _judged_step(self) -> torch.Tensor:
        """A step, and whether it was one; returns this rank's shares of the loss terms."""
        skipped = self._engine.skipped_steps
        terms = self._steps.step()
        if self._engine.skipped_steps == skipped:
            self._health.taken()
        else:  # rare, so the wait for the device does not matter
            raw = dict(zip(self._work.terms, self._ranks.sum(terms.clone()).tolist(), strict=True))
            weighted = {name: raw[name] for name in self._work.weights(self._at.step - 1)}
            self._health.skipped(self._at.step, weighted, self._engine.loss_scale, self._monitor.warn)
        return terms

    def _start_clock(self) -> None:
        """Speed and waiting are counted from here on."""
        self._mark = (time.perf_counter(), self._at, self._steps.waited)

    def _report(self, terms: torch.Tensor) -> None:
        """Write the scalars of the step just done; ``terms`` are summed over all ranks."""
        work, at, engine = self._work, self._at, self._engine
        raw = dict(zip(work.terms, terms.tolist(), strict=True))  # waits for the device, so the clock is read after it
        (start, since, waited), seconds_waited = self._mark, self._steps.waited
        self._start_clock()
        seconds = self._mark[0] - start
        weights = work.weights(at.step - 1)
        weighted = {name: alpha * raw[name] for name, alpha in weights.items()}
        loss = sum(weighted.values())
        self._health.reported(at.step, loss, self._monitor.warn)
        speed = (at.tokens - since.tokens) / seconds
        eta = (work.stop_step - at.step) * seconds / (at.step - since.step)
        optimizer = work.optimizer
        values = {"loss/total": loss}
        values |= {f"loss/{name}": raw[name] for name in weighted}
        values |= {f"loss_weighted/{name}": value for name, value in weighted.items()}
        values |= work.curves(raw, self._steps.global_batch(at.micro_batch - work.micro_batches), at.step - 1)
        values |= {
            "optimizer/lr": learning_rate(at.step - 1, work.total_steps, optimizer.lr, optimizer.warmup_fraction),
            "optimizer/grad_norm": engine.grad_norm,
            "optimizer/loss_scale": engine.loss_scale,
            "optimizer/skipped_steps": engine.skipped_steps,
            "speed/tokens_per_second": speed,
            "speed/eta_hours": eta / 3600,
            "data/wait_fraction": (seconds_waited - waited) / seconds,
            "data/tokens": at.tokens,
            "health/bad_steps": self._health.bad_steps,
            "health/spikes": self._health.spikes,
            "memory/peak_gib": peak_memory_gib(self._ranks.device),
        }
        self._monitor.scalars(values, at.step, at.tokens)
        self._monitor.progress(at.step, {"loss": f"{loss:.3f}", "tokens/s": f"{speed:,.0f}", "left": _clock(eta)})

    def _evaluate(self) -> None:
        """Figures of the model as it stands."""
        began = time.perf_counter()
        values = self._work.evaluate(self._engine, self._ranks, self._between_batches)
        if values:
            self._monitor.scalars(values, self._at.step, self._at.tokens)
            self._start_clock()
        self.evaluating += time.perf_counter() - began


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
