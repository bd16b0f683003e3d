"""The same training however it is spread: ranks, ZeRO stages, precisions, through the real launcher."""

from __future__ import annotations

import json

import pytest
import torch
from harness import ROOT, Material, must_pretrain, pretrain, scalars
from safetensors.torch import load_file

TAGS = ("loss/total", "loss/ce", "loss/mlm", "loss/cos")
CONFIGS = sorted(path.name for path in (ROOT / "ds_config").glob("*.json"))


def run(material: Material, out, ranks, ds_config, *more):
    must_pretrain(
        ranks, "--recipe", material.recipe, "--deepspeed", ROOT / "ds_config" / ds_config, "--output_dir", out, *more
    )
    return out


def partitioned(folder):
    """zero3.json that shards even this model's small tensors, which by default stay whole on every rank."""
    ds_config = json.loads((ROOT / "ds_config" / "zero3.json").read_text())
    ds_config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    (folder / "partitioned.json").write_text(json.dumps(ds_config))
    return folder / "partitioned.json"


def curves(out):
    return torch.tensor([list(scalars(out, tag).values()) for tag in TAGS])


@pytest.fixture(scope="module")
def one_rank(material, tmp_path_factory):
    """12 steps on one rank, fp32, ZeRO-0: what all others are held against."""
    out = tmp_path_factory.mktemp("runs") / "one"
    return run(material, out, None, "zero0.json", "--precision", "fp32", "--max_steps", 12)


def test_two_ranks_of_two_are_one_rank_of_four(material, one_rank, tmp_path):
    two = run(material, tmp_path / "two", 2, "zero0.json", "--precision", "fp32", "--max_steps", 12)
    for tag in ("data/tokens", "data/masked_fraction", "data/epoch", "optimizer/lr"):
        assert scalars(two, tag) == scalars(one_rank, tag)  # the same data, to the bit
    # Masks and dropout are the same numbers; only the order in which four fp32 gradients are added differs, which
    # AdamW's division by sqrt(v) + 1e-6 can blow up a hundredfold over 12 steps: 6e-8 x 100 x 12 < 1e-4.
    torch.testing.assert_close(curves(two), curves(one_rank), rtol=1e-4, atol=1e-5)
    norms = [torch.tensor(list(scalars(out, "optimizer/grad_norm").values())) for out in (two, one_rank)]
    torch.testing.assert_close(*norms, rtol=1e-3, atol=0)
    # The first step's gradient comes from equal weights: nothing but the order of addition.
    torch.testing.assert_close(norms[0][0], norms[1][0], rtol=1e-5, atol=0)


@pytest.mark.parametrize("config", ["zero0.json", "zero2.json"])
def test_three_ranks_share_four_micro_batches(material, one_rank, tmp_path, config):
    three = run(material, tmp_path / "three", 3, config, "--precision", "fp32", "--max_steps", 12)
    assert scalars(three, "data/tokens") == scalars(one_rank, "data/tokens")
    torch.testing.assert_close(curves(three), curves(one_rank), rtol=1e-4, atol=1e-5)  # as with two ranks


@pytest.mark.parametrize("config", ["zero1.json", "zero2.json", "zero3.json", "zero2_offload.json"])
def test_zero_stages_train_alike(material, one_rank, tmp_path, config):
    placement = partitioned(tmp_path) if config == "zero3.json" else config
    sharded = run(material, tmp_path / "run", 2, placement, "--precision", "fp32", "--max_steps", 12)
    # As above: sharding changes the order of additions and nothing else.
    torch.testing.assert_close(curves(sharded), curves(one_rank), rtol=1e-4, atol=1e-5)
    ours, theirs = (load_file(out / "student" / "model.safetensors") for out in (sharded, one_rank))
    assert ours.keys() == theirs.keys()
    for name in ours:
        # lr 2e-3 x 12 steps is the most a weight can move; 2 % of it may come of the order of additions, where a
        # gradient is near AdamW's eps.
        torch.testing.assert_close(ours[name], theirs[name], rtol=0, atol=5e-4)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_half_precision_follows_fp32(material, one_rank, tmp_path, stage, precision):
    ds_config = json.loads((ROOT / "ds_config" / f"zero{stage}.json").read_text())
    ds_config["fp16"]["initial_scale_power"] = 10  # this teacher's gradients are steep: 2^16 would skip some steps
    (tmp_path / "cool.json").write_text(json.dumps(ds_config))
    half = run(material, tmp_path / "run", 2, tmp_path / "cool.json", "--precision", precision, "--max_steps", 12)
    assert scalars(half, "optimizer/skipped_steps")[12] == 0
    assert scalars(half, "optimizer/loss_scale")[12] == (2**10 if precision == "fp16" else 1)
    # A 16-bit number is off by up to 2^-9 (bf16) or 2^-12 (fp16); teacher and student together make some 60 roundings
    # in a row, which add like a random walk: 8 x 2^-9 = 1.6 % and 0.2 % of a logit. The logits of this teacher are
    # large, so that a loss moves by about twice that; of 48 figures the largest is half as much again off.
    tolerance = {"bf16": 6e-2, "fp16": 5e-3}[precision]
    torch.testing.assert_close(curves(half), curves(one_rank), rtol=tolerance, atol=2e-3)
    norms = [torch.tensor(list(scalars(out, "optimizer/grad_norm").values())) for out in (half, one_rank)]
    torch.testing.assert_close(*norms, rtol=5 * tolerance, atol=0)  # of the unscaled gradients, which err more
    # And it learns: updates that were lost to a missing loss scale would leave the loss where it was.
    learnt = [scalars(out, "loss/total") for out in (half, one_rank)]
    assert all(curve[12] < 0.93 * curve[1] for curve in learnt)


@pytest.mark.parametrize("config", ["zero0.json", "zero1.json"])
def test_fp16_overflow_skips_and_recovers(material, tmp_path, config):
    ds_config = json.loads((ROOT / "ds_config" / config).read_text())
    ds_config["fp16"] |= {"initial_scale_power": 32, "hysteresis": 1}
    (tmp_path / "hot.json").write_text(json.dumps(ds_config))
    out = tmp_path / "run"
    must_pretrain(
        2, "--recipe", material.recipe, "--deepspeed", tmp_path / "hot.json", "--precision", "fp16",
        "--output_dir", out, "--max_steps", 40,
    )  # fmt: skip
    scale, skipped, loss = (
        scalars(out, tag) for tag in ("optimizer/loss_scale", "optimizer/skipped_steps", "loss/total")
    )
    assert skipped[1] == 1 and loss[2] == pytest.approx(loss[1], rel=0.15)  # no update, another batch
    assert scale[40] < 2**32 and 0 < skipped[40] < 25
    assert skipped[40] == skipped[35]  # no overflow any more
    assert loss[40] < 0.9 * loss[1]


def test_a_loss_that_is_no_number_ends_the_run(material, tmp_path):
    result = pretrain(
        None, "--recipe", material.recipe, "--deepspeed", "ds_config/zero0.json", "--precision", "fp32",
        "--output_dir", tmp_path / "run", "--lr", "1e30", "--max_steps", 12,
    )  # fmt: skip
    assert result.returncode == 70
    assert "10 bad steps in a row, the last one step 11: loss term ce is nan" in result.stderr.splitlines()[-1]
    assert not (tmp_path / "run" / "checkpoints").exists()  # nothing of it was kept
