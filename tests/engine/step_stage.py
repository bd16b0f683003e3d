"""Real steps by the engine and the trainer, counted, in every stage of ZeRO and precision, in one launch.

Started by the launcher: ``step_stage.py OUT``. Rank 0 writes what was counted as JSON. On a GPU a micro-step that is no
step's last runs where torch makes any wait for the device an error.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import transformers
from counting import Recording

from distil import errors
from distil.data.batch import PackedBatch

ROOT = Path(__file__).parents[2]
ACCUMULATION, VOCAB, LOGGED = 2, 53, 3
PRECISIONS = ("fp32", "bf16", "fp16")
CASES = [(0, "fp32"), *((stage, precision) for stage in (0, 1, 2, 3) for precision in PRECISIONS[1:])]


def module_of(precision: str) -> torch.nn.Module:
    """A student with dropout and its teacher under the published loss."""
    from distil.engine.device import DTYPES
    from distil.models.distiller import Distiller
    from distil.models.families import BERT, DISTILBERT
    from distil.tables import Loss

    torch.manual_seed(0)
    shape = dict(vocab_size=VOCAB, max_position_embeddings=16)
    student = transformers.DistilBertForMaskedLM(
        transformers.DistilBertConfig(dim=32, n_layers=2, n_heads=4, hidden_dim=64, **shape)
    )
    teacher = transformers.BertForMaskedLM(
        transformers.BertConfig(
            hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64, **shape
        )
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    teacher = teacher.eval().requires_grad_(False).to(device, DTYPES[precision])
    return Distiller(
        student.train(), DISTILBERT, teacher, BERT, Loss(temperature=2.0, alpha_ce=5.0, alpha_mlm=2.0, alpha_cos=1.0)
    )


def batch(number: int) -> PackedBatch:
    """A micro-batch of sequences of several lengths."""
    draw, lengths = np.random.default_rng(number), np.array([7, 3, 12, 4], dtype=np.int32)
    ids = draw.integers(5, VOCAB, lengths.sum())
    labels = np.where(draw.permutation(len(ids)) < 6, ids, -100)
    return PackedBatch.pack(ids, labels, lengths)


class Work:
    """A workload (see ``distil.workload``) of so many steps; ``at`` is the step that a recording is in, from 0."""

    judged_untrained, stop_step, total_steps = False, 5, 5

    def __init__(self, world: int) -> None:
        from distil.models.distiller import TERMS
        from distil.tables import Optimizer, Run

        self.run = Run(log_every=LOGGED, eval_every=0, save_every=0)
        self.optimizer = Optimizer(
            lr=1e-3, adam_beta1=0.9, adam_beta2=0.98, adam_eps=1e-6, weight_decay=0.0, warmup_fraction=0.1,
            max_grad_norm=5.0, epochs=1, seed=1,
        )  # fmt: skip
        self.micro_batches, self.accumulation, self.terms = ACCUMULATION * world, ACCUMULATION, TERMS
        self.batch, self.at, self.by_step = batch, -1, []
        self.recording = Recording()

    def tokens(self, numbers: range) -> int:
        return 26 * len(numbers)

    def given(self, number: int, numbers: range, step: int) -> tuple:
        from distil.models.distiller import Counts

        if step != self.at:
            self.at, self.recording.waits = step, Counter()
            self.by_step.append(self.recording.waits)
        return Counts(26 * len(numbers), 6 * len(numbers)), True

    def weights(self, step: int) -> dict[str, float]:
        return {"ce": 5.0, "mlm": 2.0, "cos": 1.0}

    def curves(self, raw: dict, numbers: range, step: int) -> dict:
        return {}

    def evaluate(self, *_: object) -> dict:
        return {}


def engine_of(stage: int, precision: str, work: Work, ranks):
    """The engine on a ds_config that ships, as a run of the program makes it."""
    from types import SimpleNamespace

    from distil.engine.wrapped import Engine
    from distil.models.student import decay_groups
    from distil.placement import place

    path = ROOT / "ds_config" / f"zero{stage}.json"
    data = SimpleNamespace(batch_size=4 * work.micro_batches, micro_batch_size=4, micro_batches=work.micro_batches)
    numbers = SimpleNamespace(called="the test", data=data, optimizer=work.optimizer)
    placement = place(path, numbers, ranks.world, ranks.device.type, PRECISIONS, precision)
    if stage == 3:  # else these small weights would all stay whole
        placement.config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    if precision == "fp16":  # no step is to be left out
        placement.config["fp16"]["initial_scale_power"] = 4
    module = module_of(precision)
    size = sum(parameter.numel() for parameter in module.parameters())
    return Engine(module, decay_groups(module, 0.0), placement, ranks), placement, size


@contextmanager
def nothing_waits(device: torch.device, strictly: bool):
    """Where any wait for a GPU is an error."""
    if strictly and device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    yield
    if strictly and device.type == "cuda":
        torch.cuda.set_sync_debug_mode("default")


def steps(stage: int, precision: str, ranks) -> dict:
    """What the second global batch counts: its first micro-step and its last."""
    work = Work(ranks.world)
    engine, _, size = engine_of(stage, precision, work, ranks)
    first, last = Recording(), Recording()
    for step in range(2):
        for place, recording in enumerate((first, last)):
            number = step * work.micro_batches + place * ranks.world + ranks.rank
            ready = batch(number).pinned() if ranks.device.type == "cuda" else batch(number)
            given = work.given(number, range(work.micro_batches), step)
            if step == 0:
                engine.micro_step(ready.to(ranks.device), *given)
            elif recording is first:
                # Of what is ours all stages run the same; from ZeRO-2 on DeepSpeed is at work amid a step, too.
                with nothing_waits(ranks.device, stage < 2), recording:
                    engine.micro_step(ready.to(ranks.device), *given)
            else:
                with recording:
                    engine.micro_step(ready.to(ranks.device), *given)
    taken = engine.skipped_steps == 0
    engine.close()
    return {"size": size, "taken": taken, "first": plain(first), "last": plain(last)}


def loop(folder: Path, ranks) -> list[dict]:
    """What each step of the trainer's own loop waits for, with what comes after it."""
    from distil.checkpoint.manifest import Position
    from distil.checkpoint.saving import Checkpoints
    from distil.engine.heartbeat import Heartbeat
    from distil.health import Health
    from distil.monitor import Monitor
    from distil.stopping import StopRequest
    from distil.trainer import Trainer

    work = Work(ranks.world)
    engine, placement, _ = engine_of(1, "bf16", work, ranks)
    checkpoints = Checkpoints(folder / "checkpoints", 1, ranks, placement, {})
    monitor = Monitor(folder / "tensorboard", "counted", 0, 0, work.stop_step, ranks.first)
    stop = StopRequest()
    trainer = Trainer(
        work, engine, ranks, checkpoints, monitor, Position(0, 0, 0), health=Health(work.run, None), stop=stop,
        heartbeat=Heartbeat(ranks, stop, 60, 900),
    )  # fmt: skip
    with work.recording:
        trainer.train()
    monitor.close()
    engine.close()
    return [named(waits) for waits in work.by_step]


def named(waits: dict) -> dict[str, int]:
    return {" ".join(key): count for key, count in waits.items()}


def plain(recording: Recording) -> dict:
    """What JSON can hold."""
    return {"waits": named(recording.waits), "sent": {" ".join(k): noted for k, noted in recording.sent.items()}}


def main() -> None:
    """Count all cases and leave."""
    from distil.engine.ranks import start_ranks, stop_ranks

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    ranks = start_ranks()
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    found = {f"{stage} {precision}": steps(stage, precision, ranks) for stage, precision in CASES}
    found["loop"] = loop(out, ranks)
    if ranks.first:
        (out / "counts.json").write_text(json.dumps(found))
    stop_ranks()


if __name__ == "__main__":
    sys.argv = [a for a in sys.argv if not a.startswith("--local_rank")]
    errors.leave(errors.run(main))
