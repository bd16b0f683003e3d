"""Models for tasks trained a few steps by the engine, in every stage of ZeRO, in one launch.

Started by the launcher: ``task_stage.py OUT``. Rank 0 writes for each of CASES its terms, logits and weights.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from distil import errors
from distil.tasks.batch import TaskBatch
from distil.tasks.tables import TaskLoss
from distil.tasks.task import CLASSIFICATION, SPANS

STEPS, SEQUENCES, RANKS, ACCUMULATION = 3, 8, 2, 2
LENGTHS = [7, 3, 12, 4, 9, 2, 5, 11]
LOSS = TaskLoss(alpha_ce=5.0, alpha_cos=2.0)
# A large epsilon, so that a step is a smooth function of the gradient: a key's bias, whose gradient is rounding alone,
# would otherwise be moved as far as any other weight.
ADAM = {"lr": 1e-2, "betas": [0.9, 0.98], "eps": 1e-2, "weight_decay": 0.0}
CLIP = 2.0  # some steps are clipped


class Case(NamedTuple):
    """A family's model for a kind of task, in a stage of ZeRO and a precision."""

    family: str
    kind: str
    stage: int
    precision: str


PLACEMENTS = [(0, "fp32"), (1, "fp32"), (1, "bf16"), (2, "fp32"), (3, "fp32"), (3, "bf16")]
# ZeRO-3 has to gather every weight that a forward asks for, so there each way to be a head is tried.
OTHERS = [("bert", SPANS), ("albert", CLASSIFICATION), ("modernbert", CLASSIFICATION), ("gpt2", CLASSIFICATION)]
CASES = [Case("bert", CLASSIFICATION, *where) for where in PLACEMENTS] + [Case(*which, 3, "fp32") for which in OTHERS]


def module_of(case: Case, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Student and teacher of a case under the loss; no dropout anywhere."""
    from tasks import tiny_task

    from distil.models.families import FAMILIES
    from distil.models.task_distiller import TaskDistiller
    from distil.models.task_heads import task_family

    none = dict.fromkeys(("classifier_dropout", "classifier_dropout_prob", "seq_classif_dropout", "qa_dropout"), 0.0)
    student, teacher = (tiny_task(case.family, case.kind, seed, **none) for seed in (1, 2))
    of_task = task_family(FAMILIES[case.family], case.kind)
    return TaskDistiller(student.train(), of_task, case.kind, teacher.to(dtype), of_task, LOSS)


def micro_batches(case: Case) -> list[TaskBatch]:
    """Those of every step."""
    from tasks import features

    made, size = features(LENGTHS, case.kind), SEQUENCES // (RANKS * ACCUMULATION)
    return [TaskBatch.of(made, range(first, first + size)) for first in range(0, SEQUENCES, size)]


def _train(case: Case, ranks) -> dict[str, torch.Tensor]:
    from distil.engine.device import DTYPES
    from distil.engine.wrapped import Engine
    from distil.models.student import decay_groups
    from distil.placement import Placement

    config = {
        "train_batch_size": SEQUENCES, "train_micro_batch_size_per_gpu": SEQUENCES // (RANKS * ACCUMULATION),
        "gradient_accumulation_steps": ACCUMULATION, "steps_per_print": 2**31,
        "gradient_clipping": CLIP, "optimizer": {"type": "AdamW", "params": {"torch_adam": True, **ADAM}},
        "zero_optimization": {"stage": case.stage},
    }  # fmt: skip
    if case.precision == "bf16":
        config |= {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"} if case.stage == 1 else {}}
    placement = Placement("made here", config, case.precision, case.stage, RANKS, ACCUMULATION, ())
    module = module_of(case, DTYPES[case.precision])
    engine = Engine(module, decay_groups(module, 0.0), placement, ranks)
    batches, steps = micro_batches(case), []
    for _ in range(STEPS):
        terms = [engine.micro_step(batch, SEQUENCES) for batch in batches[ranks.rank :: RANKS]]
        steps.append(ranks.sum(torch.stack(terms).sum(0)))
    logits = engine.evaluate(batches[0], None)
    found = {name: value.clone() for name, value in engine.fp32_parameters(module.student)}
    engine.close()
    return found | {"terms": torch.stack(steps), "logits": logits.contiguous()}


def main() -> None:
    """Train all cases and leave."""
    import safetensors.torch

    from distil.engine.ranks import start_ranks, stop_ranks

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    ranks = start_ranks()
    torch.set_num_threads(1)
    for number, case in enumerate(CASES):
        found = _train(case, ranks)
        if ranks.first:
            safetensors.torch.save_file(found, Path(sys.argv[1]) / f"{number}.safetensors")
    stop_ranks()


if __name__ == "__main__":
    sys.argv = [a for a in sys.argv if not a.startswith("--local_rank")]
    errors.leave(errors.run(main))
