"""What a step costs beside its arithmetic: waits of the host for its device, and what ranks send one another."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from counting import Recording
from harness import ROOT, command, environment
from step_stage import CASES, LOGGED

BYTES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
# On a CPU alone the loss looks at the labels (kernels.contract), and ranks agree in host memory, whatever the device.
NO_DEVICE = ("distil.kernels.contract", "distil.engine.ranks most")

# Waits of DeepSpeed 0.19.8 in a step's last micro-step. It has to know whether gradients are finite before it steps
# (utils.is_invalid_grad_norm, once a parameter group and once for all; stage_1_and_2.has_overflow, stage3.has_overflow)
# and whether to clip (utils.clip_tensors_by_global_norm, in bf16's ZeRO-1, which asks nothing by group). No setting
# takes the answer from the device alone: without them a step on NaN would be taken, or no norm known.
DEEPSPEEDS = {(1, "bf16"): 2, (1, "fp16"): 4, (2, "bf16"): 4, (2, "fp16"): 4, (3, "bf16"): 1, (3, "fp16"): 2}
# ZeRO-0 in 16 bits looks at every gradient by itself (utils.CheckOverflow.has_overflow_serial): 41 here, then 5 times.
EACH_GRADIENT = 41
DEEPSPEEDS |= {(0, "bf16"): EACH_GRADIENT + 5, (0, "fp16"): EACH_GRADIENT + 5, (0, "fp32"): 0}
# In fp32 ZeRO-0 has no such look; ours, for the same reason, is the one (engine.wrapped._step_if_finite).
OURS = {(0, "fp32"): {"_local_scalar_dense distil.engine.wrapped _step_if_finite": 1}}


def launch(ranks: int, out: Path) -> dict:
    """What the real steps count on so many ranks."""
    line = command(ranks, out, program="tests/engine/step_stage.py")
    paths = [ROOT, ROOT / "tests" / "engine"]
    variables = environment() | {"PYTHONPATH": ":".join(map(str, paths))}
    if not torch.cuda.is_available():
        variables["DISTIL_LOSS"] = "torch"  # the steps that a GPU takes, but for its own passes over logits
    result = subprocess.run(line, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return json.loads((out / "counts.json").read_text())


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict:
    if torch.cuda.is_available():
        pytest.skip("a GPU is at hand: torch itself tells there of waits")
    return launch(2, tmp_path_factory.mktemp("steps"))


def of(counted: dict, stage: int, precision: str) -> tuple[dict, dict, int]:
    found = counted[f"{stage} {precision}"]
    assert found["taken"]
    return found["first"], found["last"], found["size"]


def waits(recorded: dict[str, int], package: str) -> dict[str, int]:
    """Those of a package, on any device."""
    return {
        key: count
        for key, count in recorded.items()
        if f" {package}." in key and not any(f" {where}" in key for where in NO_DEVICE)
    }


every_case = pytest.mark.parametrize(("stage", "precision"), CASES)


@every_case
def test_a_micro_step_before_the_last_waits_for_nothing(counted, stage, precision):
    first, _, _ = of(counted, stage, precision)
    assert waits(first["waits"], "distil") == waits(first["waits"], "deepspeed") == {}
    assert first["waits"], "nothing was recorded: on a CPU the labels are looked at"


@every_case
def test_the_last_micro_step_waits_where_deepspeed_must(counted, stage, precision):
    _, last, _ = of(counted, stage, precision)
    assert waits(last["waits"], "distil") == OURS.get((stage, precision), {})
    assert sum(waits(last["waits"], "deepspeed").values()) == DEEPSPEEDS[stage, precision]


def test_between_reports_the_trainer_waits_for_nothing(counted):
    by_step = [waits(step, "distil") for step in counted["loop"]]
    reported = [step for step, found in enumerate(by_step, 1) if found]
    assert reported == [LOGGED, len(by_step)]  # the last step is reported, and saved, too
    assert "tolist distil.trainer _report" in by_step[LOGGED - 1]


def gradients(sent: dict[str, list[int]], size: int) -> dict[str, list[int]]:
    """What is sent that is no single number, summed or scattered."""
    reductions = {key: [n for n in sizes if n > size / 8] for key, sizes in sent.items() if "gather" not in key}
    return {key: sizes for key, sizes in reductions.items() if sizes}


@every_case
def test_gradients_are_reduced_once_a_global_batch_in_the_precision_of_the_run(counted, stage, precision):
    first, last, size = of(counted, stage, precision)
    ways = "reduce_scatter_base" if stage == 3 else "allreduce"
    found = gradients(last["sent"], size)
    assert found.keys() == {f"{ways} {BYTES[precision]}"}
    assert len(found[f"{ways} {BYTES[precision]}"]) == 1
    assert size <= found[f"{ways} {BYTES[precision]}"][0] <= size + 16  # and padding to a whole number of ranks' shares
    # A rank that keeps a part of the gradients alone has to give the others away after every micro-step.
    assert gradients(first["sent"], size) == ({} if stage < 2 else found)


def test_the_recording_sees_what_it_looks_for():
    x = torch.arange(6.0)
    looks = [
        lambda: x.sum().item(), lambda: bool(x[0] > 1), lambda: float(x[0]), lambda: x.tolist(), lambda: x.nonzero(),
        lambda: x[x > 2], lambda: x.unique(), lambda: x.masked_select(x > 2), lambda: torch.equal(x, x),
        lambda: x.cpu(), lambda: x.numpy(), lambda: x.repeat_interleave(torch.tensor([1] * 6)),
    ]  # fmt: skip
    for number, look in enumerate(looks):
        with Recording() as recording:
            look()
        assert recording.waits, number
    with Recording() as recording:
        (x * 2).sum()
        x[torch.tensor([1, 2])]
        x.repeat_interleave(torch.tensor([1] * 6), output_size=6)
    assert not recording.waits


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_torch_finds_no_wait_before_the_last_micro_step(tmp_path):
    """The program runs those micro-steps where a wait is an error."""
    launch(1, tmp_path)
