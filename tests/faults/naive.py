"""A training loop as people write it around DeepSpeed, under the faults that our own runs are tested with.

Started by the launcher: ``naive.py train FOLDER STEPS``, or ``naive.py spoil WORK``, in which many runs follow each
other in one launch; their figures go to WORK/figures.json, and the last one loses rank 1 in the middle of a save.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from distil.engine.device import prepare_device  # no compiler is needed then; nothing else here is ours

import deepspeed  # isort: skip

LAST = 20
BEFORE_FAULT = 10
SAVE_EVERY = 5
CONFIG = {
    "train_micro_batch_size_per_gpu": 8,
    "gradient_clipping": 1.0,
    "optimizer": {"type": "Adam", "params": {"lr": 1e-3, "torch_adam": True}},
    "zero_optimization": {"stage": 1},
}


def train(folder: Path, steps: int) -> dict:
    """The loop: a model, deepspeed.initialize, load what is there, step, save now and then."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.Tanh(), torch.nn.Linear(128, 64))
    with contextlib.redirect_stdout(io.StringIO()):
        engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=CONFIG)
    engine.load_checkpoint(str(folder))
    began, losses = engine.global_steps, {}
    say(f"{folder.name} begins at step {began}")
    while engine.global_steps < steps:
        generator = torch.Generator().manual_seed(1000 * engine.global_steps + engine.global_rank)
        inputs = torch.randn(8, 64, generator=generator)
        loss = torch.nn.functional.mse_loss(engine(inputs), inputs.sin())
        engine.backward(loss)
        engine.step()
        losses[engine.global_steps] = loss.item()
        if engine.global_steps % SAVE_EVERY == 0:
            engine.save_checkpoint(str(folder))
    say(f"{folder.name} ends at step {engine.global_steps} with loss {losses[engine.global_steps]}")
    engine.destroy()
    return {"began": began, "losses": losses}


def say(line: str) -> None:
    """Rank 0 speaks."""
    if torch.distributed.get_rank() == 0:
        print(line, flush=True)


def spoil(work: Path) -> None:
    """Each fault between two starts of a run; then one in the middle of a save."""
    rank = torch.distributed.get_rank()
    figures = {"whole": train(work / "whole", LAST), "broken": train(work / "broken", BEFORE_FAULT)}
    shard = f"global_step{BEFORE_FAULT}/zero_pp_rank_1_mp_rank_00_optim_states.pt"
    faults = {
        "undisturbed": lambda folder: None,
        "latest_missing": lambda folder: (folder / "latest").unlink(),
        "bit_flipped": lambda folder: flip(folder / shard),
    }
    for name, fault in faults.items():
        if rank == 0:
            shutil.copytree(work / "broken", work / name)
            fault(work / name)
        torch.distributed.barrier()
        figures[name] = train(work / name, LAST)
    if rank == 0:
        shutil.copytree(work / "broken", work / "cut")
        (work / "figures.json").write_text(json.dumps(figures))
    torch.distributed.barrier()
    if rank == 1:
        die_in_a_save(work / "cut")
    train(work / "cut", LAST)


def flip(path: Path) -> None:
    """Change one bit of a shard: the highest one of a weight's exponent."""
    data = bytearray(path.read_bytes())
    weights = torch.load(path, weights_only=False)["optimizer_state_dict"]["single_partition_of_fp32_groups"][0]
    data[data.index(weights.detach().numpy().tobytes()) + 3] ^= 0x40
    path.write_bytes(data)


def die_in_a_save(folder: Path) -> None:
    """From here on this rank's disk is slow: when it dies by SIGKILL, half of its file is there and rank 0 is ready."""
    save = torch.save

    def half(state: object, path: str, **how: object) -> None:
        save(state, path, **how)
        os.truncate(path, os.path.getsize(path) // 2)
        while (folder / "latest").read_text() != Path(path).parent.name:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half


def main() -> None:
    """Start two ranks and do what is asked."""
    deepspeed.utils.logger.setLevel("WARNING")
    prepare_device(int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"]))
    deepspeed.init_distributed(dist_backend="gloo", auto_mpi_discovery=False, verbose=False)
    what, folder, *rest = [argument for argument in sys.argv[1:] if not argument.startswith("--local_rank")]
    if what == "spoil":
        spoil(Path(folder))
    else:
        train(Path(folder), int(rest[0]))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
