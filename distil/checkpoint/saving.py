"""Saving beside the steps: the step waits for a copy in memory, threads do the rest, ranks agree when all is there."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from distil.checkpoint import folder as folders
from distil.checkpoint import tensors
from distil.checkpoint.manifest import FileEntry, Manifest, Position
from distil.checkpoint.tensors import Key, Reader
from distil.config import completed
from distil.engine.ranks import Ranks
from distil.engine.state import Loaded, TrainingState
from distil.errors import ConfigError, DataError, RunError, by_all, one_line
from distil.identity import difference
from distil.placement import Placement

T = TypeVar("T")


class Checkpoints:
    """The checkpoints of one run, in ``folder``, of which the newest ``keep`` stay.

    A save has two halves, each in a thread: every rank writes its file; then, once ranks have agreed at the end of a
    step that all have, rank 0 publishes the whole. ``flags`` are to be agreed on (largest over ranks) at the end of
    every step and given to ``go_on``.
    """

    def __init__(
        self, folder: Path, keep: int, ranks: Ranks, placement: Placement, identity: dict[str, Any]
    ) -> None:  # fmt: skip
        self._folder, self._keep, self._ranks = folder, keep, ranks
        self._placement, self._identity = placement, identity
        self._pending: Manifest | None = None  # yet without its files
        self._publishing = False
        self._thread: threading.Thread | None = None
        self._entry: FileEntry | None = None
        self._error: str | None = None
        self._bytes = 0
        self.newest: Position | None = None  # of the newest checkpoint that this run has written or resumed from

    def begin(self, state: TrainingState, position: Position, health: dict[str, Any]) -> None:
        """Copy the state and begin to write it; an earlier save is finished first. Every rank must call it."""
        self.finish()
        copy = {**state.copy(), **tensors.random_states(self._ranks.rank)}
        self._bytes = sum(value.nbytes for value in copy.values())
        place = self._placement
        self._pending = Manifest(
            position, self._ranks.world, place.zero_stage, place.precision, self._identity, state.numbers(), health, {}
        )
        self._publishing, self._entry = False, None
        self._start(lambda: self._write(copy, position))

    def flags(self) -> tuple[int, int]:
        """Whether this rank's thread is at work, and whether it has failed."""
        return int(self._thread is not None and self._thread.is_alive()), int(self._error is not None)

    def go_on(self, at_work: int, failed: int) -> None:
        """Take the save a step further; the flags are those of all ranks. Raises RunError on all where one failed."""
        if self._pending is None or (at_work and not failed):
            return
        if failed:
            self._give_up()
        if self._publishing:
            self._pending, self.newest = None, self._pending.position
            return
        entries = self._ranks.gather(self._entry)
        self._publishing = True
        if self._ranks.first:
            files = {tensors.file_name(rank): entry for rank, entry in enumerate(entries)}
            whole = replace(self._pending, files=files)
            self._start(lambda: folders.publish(self._folder, whole, self._keep))

    def finish(self) -> None:
        """Until a save that has begun is on disk and published. Every rank must call it."""
        while self._pending is not None:
            if self._thread is not None:
                self._thread.join()
            self.go_on(*self._ranks.most(self.flags()))

    def _start(self, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except FloatingPointError as error:
                self._error = f"is not written, because {one_line(error)}"
            except Exception as error:  # noqa: BLE001 - whatever it is, half a checkpoint must not pass for one
                self._error = f"cannot be written to {self._folder}: {one_line(error) or type(error).__name__}"

        self._thread = threading.Thread(target=guarded, name="checkpoint")
        self._thread.start()

    def _write(self, copy: dict[Key, Tensor], position: Position) -> None:
        broken = [key for key, value in copy.items() if value.is_floating_point() and not torch.isfinite(value).all()]
        if broken:
            raise FloatingPointError(f"{broken[0][1]} ({broken[0][0]}) is no longer finite")
        draft = folders.draft_of(self._folder, position.step)
        draft.mkdir(parents=True, exist_ok=True)
        self._entry = tensors.write(draft / tensors.file_name(self._ranks.rank), copy)

    def _give_up(self) -> None:
        position = self._pending.position
        self._pending = None
        self._thread.join()  # so that nobody writes any more when the draft goes
        found = self._ranks.gather((self._error, self._bytes))
        cause = next(error for error, _ in found if error is not None)
        needed = sum(size for _, size in found)
        if self._ranks.first:
            shutil.rmtree(folders.draft_of(self._folder, position.step), ignore_errors=True)
        free = self._ranks.share(_free_bytes(self._folder) if self._ranks.first else None)
        raise by_all(
            RunError(
                f"checkpoint of step {position.step} {cause} (it needs {needed:,} bytes, {free} are free there); "
                "earlier checkpoints are whole, and the same command resumes"
            )
        )

    def restore(self, state: TrainingState, tell: Callable[[str], None]) -> Manifest | None:
        """Take the newest checkpoint that verifies; None where there has been none. Every rank must call it.

        ``tell`` gets a line for whatever is out of order. Raises DataError where none of several can be used, and
        ConfigError for one of another experiment.
        """
        if self._ranks.first:
            folders.clean(self._folder)
        while True:
            name, told = self._ranks.first_does(lambda: self._writing(folders.newest_verified, self._folder))
            for line in told:
                tell(line)
            if name is None:
                return None
            manifest = self._ranks.first_does(lambda name=name: self._checked(name))
            try:
                loaded = self._ranks.all_do(lambda name=name, manifest=manifest: self._read(state, name, manifest))
            except DataError as error:  # hashes agree, and yet it is none of ours
                self._ranks.first_does(lambda name=name, why=str(error): self._reject(name, why, tell))
                continue
            state.restore(loaded[0], manifest.numbers)
            tensors.set_random_states(loaded[1])
            self.newest = manifest.position
            self._tell_resumed(name, manifest, tell)
            return manifest

    def _checked(self, name: str) -> Manifest:
        manifest = Manifest.read(self._folder / name)
        if apart := difference(completed(manifest.identity, self._identity), self._identity):
            raise ConfigError(
                f"checkpoint {self._folder / name} is of another run ({apart}); give the same options to resume it, "
                "or another --output_dir"
            )
        return manifest

    def _reject(self, name: str, why: str, tell: Callable[[str], None]) -> None:
        if folders.names(self._folder) == [name]:
            raise folders.none_left(self._folder, why)
        tell(self._writing(folders.set_aside, self._folder, name, why))

    def _writing(self, work: Callable[..., T], *arguments: object) -> T:
        try:
            return work(*arguments)
        except OSError as error:
            raise RunError(f"checkpoints in {self._folder} cannot be put in order: {error}") from error

    def _read(self, state: TrainingState, name: str, manifest: Manifest) -> tuple[Loaded, dict[str, Tensor]]:
        with Reader(self._folder / name / file for file in manifest.files) as reader:
            return state.read(reader.read, manifest.numbers), reader.random_states(self._ranks.rank)

    def _tell_resumed(self, name: str, manifest: Manifest, tell: Callable[[str], None]) -> None:
        tell(f"resuming from {self._folder / name}")
        place = self._placement
        then = (manifest.ranks, manifest.zero_stage, manifest.precision)
        if then != (self._ranks.world, place.zero_stage, place.precision):
            tell(
                f"it was written by {manifest.ranks} rank(s) under ZeRO-{manifest.zero_stage} in {manifest.precision}: "
                "samples keep their order, and figures are the same to within rounding"
            )


def _free_bytes(folder: Path) -> str:
    try:
        return f"{shutil.disk_usage(folder if folder.exists() else folder.parent).free:,}"
    except OSError:
        return "unknown"
