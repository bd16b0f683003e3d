"""What is done to a run between its steps 10 and 15, each the fault of a row of docs/reliability.md."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import disks
from stage import NEWEST, Outcome, Stage

BEFORE = "checkpoints/step-00000005"
SHARD = "rank-00001.safetensors"


def flip(path: Path, at: int) -> None:
    """Change one bit of a file, counted from its end where negative."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def undisturbed(stage: Stage) -> Outcome:
    return stage.train(stage.copy("undisturbed"))


def latest_missing(stage: Stage) -> Outcome:
    run = stage.copy("latest_missing")
    stage.first((run / "checkpoints/latest").unlink)
    return stage.train(run)


def latest_empty(stage: Stage) -> Outcome:
    run = stage.copy("latest_empty")
    stage.first(lambda: (run / "checkpoints/latest").write_text(""))
    return stage.train(run)


def latest_names_nothing(stage: Stage) -> Outcome:
    run = stage.copy("latest_names_nothing")
    stage.first(lambda: (run / "checkpoints/latest").write_text("../../elsewhere\n"))
    return stage.train(run)


def latest_alone(stage: Stage) -> Outcome:
    run = stage.copy("latest_alone")
    for name in (NEWEST, BEFORE):
        stage.first(lambda name=name: shutil.rmtree(run / name))
    return stage.train(run)


def bit_flipped(stage: Stage) -> Outcome:
    run = stage.copy("bit_flipped")
    stage.first(lambda: flip(run / NEWEST / SHARD, -1000))
    return stage.train(run)


def bit_flipped_in_the_manifest(stage: Stage) -> Outcome:
    run = stage.copy("bit_flipped_in_the_manifest")
    stage.first(lambda: flip(run / NEWEST / "manifest.json", 200))
    return stage.train(run)


def shard_missing(stage: Stage) -> Outcome:
    run = stage.copy("shard_missing")
    stage.first((run / NEWEST / SHARD).unlink)
    return stage.train(run)


def shard_short(stage: Stage) -> Outcome:
    run = stage.copy("shard_short")
    stage.first(lambda: (run / NEWEST / SHARD).write_bytes((run / NEWEST / SHARD).read_bytes()[:-7]))
    return stage.train(run)


def all_damaged(stage: Stage) -> Outcome:
    run = stage.copy("all_damaged")
    for name in (NEWEST, BEFORE):
        stage.first(lambda name=name: flip(run / name / SHARD, -1000))
    return stage.train(run)


class Poison:
    """Unpickled, it would leave a file behind."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return Path.touch, (Path(self.mark),)


def _poison(run: Path, name: str, mark: Path) -> None:
    """Put a pickle in a shard's place, with a manifest that has its size and hash, as whoever can write here could."""
    import torch

    from distil.checkpoint.manifest import FileEntry, Manifest, hash_file

    shard = run / name / SHARD
    torch.save({"weights": Poison(str(mark))}, shard)
    torch.save({"weights": Poison(str(mark))}, run / name / "mp_rank_00_model_states.pt")
    manifest = Manifest.read(run / name)
    manifest.files[SHARD] = FileEntry(shard.stat().st_size, hash_file(shard))
    manifest.write(run / name)
    manifest.verify(run / name)


def poisoned(stage: Stage) -> Outcome:
    run = stage.copy("poisoned")
    stage.first(lambda: _poison(run, NEWEST, run.parent / "poison-ran"))
    return stage.train(run)


def poisoned_all(stage: Stage) -> Outcome:
    run = stage.copy("poisoned_all")
    for name in (NEWEST, BEFORE):
        stage.first(lambda name=name: _poison(run, name, run.parent / "poison-ran"))
    return stage.train(run)


def another_recipe(stage: Stage) -> Outcome:
    return stage.train(stage.copy("another_recipe"), 15, "--lr", "1e-3", "--temperature", "4")


def another_store(stage: Stage) -> Outcome:
    return stage.train(stage.copy("another_store"), 15, "--store", str(stage.material / "other"))


def anothers_checkpoints(stage: Stage) -> Outcome:
    """run.json says that all is well, but the checkpoints in the folder are of another recipe."""
    run = stage.copy("anothers_checkpoints")

    def spoil() -> None:
        identity = json.loads((run / "run.json").read_text())
        identity["mathematics"]["optimizer"]["lr"] = 1e-3
        (run / "run.json").write_text(json.dumps(identity))

    stage.first(spoil)
    return stage.train(run, 15, "--lr", "1e-3")


def under(config: str, precision: str, name: str, steps: range, side: int = 1) -> Callable[[Stage], Outcome]:
    """A case in which the teacher (or the student, side 0) gives NaN, in a placement of its own."""

    def case(stage: Stage) -> Outcome:
        with stage.hidden_times(float("nan"), steps, side):
            options = ("--deepspeed", f"ds_config/{config}.json", "--precision", precision, "--max_bad_steps", "3")
            return stage.train(stage.work / name, 8, *options)

    return case


PLACEMENTS = (("zero0", "fp32"), ("zero0", "bf16"), ("zero1", "fp32"), ("zero1", "bf16"), ("zero2", "fp32"),
              ("zero3", "fp32"), ("zero3", "bf16"), ("zero1", "fp16"), ("zero0", "fp16"))  # fmt: skip
for placed, computed in PLACEMENTS:
    for how, when in (("once", range(3, 4)), ("for_good", range(6, 99))):
        globals()[f"nan_{how}_{placed}_{computed}"] = under(placed, computed, f"nan_{how}_{placed}_{computed}", when)
nan_of_student = under("zero1", "fp32", "nan_of_student", range(6, 99), side=0)


def in_two_parts(config: str, precision: str, name: str) -> Callable[[Stage], Outcome]:
    """A case that makes 6 steps at once in one folder, and in another 3 and then 3 more."""

    def case(stage: Stage) -> Outcome:
        options = ("--deepspeed", f"ds_config/{config}.json", "--precision", precision)
        stage.train(stage.work / f"{name}_whole", 6, *options)
        stage.train(stage.work / name, 3, *options)
        return stage.train(stage.work / name, 6, *options)

    return case


EVERYWHERE = (*PLACEMENTS, ("zero2", "bf16"), ("zero2_offload", "bf16"), ("zero2_offload", "fp16"), ("zero3", "fp16"))
for placed, computed in EVERYWHERE:
    globals()[f"parts_{placed}_{computed}"] = in_two_parts(placed, computed, f"parts_{placed}_{computed}")


def scale_collapses(stage: Stage) -> Outcome:
    with stage.gradients_times(float("inf"), range(6, 99)):
        return stage.train(stage.work / "scale_collapses", 60, "--precision", "fp16")


def scale_collapses_without_zero(stage: Stage) -> Outcome:
    with stage.gradients_times(float("inf"), range(6, 99)):
        options = ("--deepspeed", "ds_config/zero0.json", "--precision", "fp16")
        return stage.train(stage.work / "scale_collapses_without_zero", 60, *options)


def gradients_infinite(stage: Stage) -> Outcome:
    with stage.gradients_times(float("inf"), range(6, 99)):
        return stage.train(stage.work / "gradients_infinite", 60)


def from_one_rank(stage: Stage) -> Outcome:
    stage.first(lambda: shutil.copytree(stage.work / "one", stage.work / "from_one_rank") and None)
    return stage.train(stage.work / "from_one_rank")


def placed_under(config: str, name: str, origin: str = "broken") -> Callable[[Stage], Outcome]:
    """A case that goes on under another ds_config."""

    def case(stage: Stage) -> Outcome:
        stage.first(lambda: shutil.copytree(stage.work / origin, stage.work / name) and None)
        return stage.train(stage.work / name, 15, "--deepspeed", f"ds_config/{config}.json")

    return case


under_zero0 = placed_under("zero0", "under_zero0")
under_zero2 = placed_under("zero2", "under_zero2")
under_zero3 = placed_under("zero3", "under_zero3")
under_zero3_from_one = placed_under("zero3", "under_zero3_from_one", "one")


def for_one_rank(stage: Stage) -> Outcome:
    """Only a copy: the test itself goes on with it."""
    stage.copy("for_one_rank")
    return Outcome(0, "", "", 0.0)


# Their names here are what the stage asks for.
FULL_DISKS = ("disk_full", "disk_freed", "curves_unwritable", "export_unwritable", "export_again")
for of_disk in FULL_DISKS:
    globals()[of_disk] = getattr(disks, of_disk)
