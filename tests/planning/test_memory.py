"""Memory: what torch keeps is what we say, and ZeRO's parts add up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from planned import CONFIGS, outlined

from distil.data.batch import PackedBatch
from distil.errors import ConfigError
from distil.models.families import FAMILIES, family_of
from distil.models.packed import packed_inputs, use_packed_attention
from distil.planning.machines import GIB, machines
from distil.planning.memory import Memory, Part, memory, parameters_of, saved
from distil.planning.products import Rows

pytestmark = pytest.mark.usefixtures("one_thread")


def kept_by_torch(config: transformers.PreTrainedConfig, lengths: list[int]) -> int:
    """Bytes of all tensors that a forward pass saves, each storage once, weights left out."""
    family = family_of(config)
    model = family.model_class(config).to(torch.bfloat16).train()
    use_packed_attention(model)
    n = sum(lengths)
    batch = PackedBatch.pack(np.arange(n) % 50, np.full(n, -100), np.array(lengths, dtype=np.int32))
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        family.hidden(model, **packed_inputs(batch))
    return sum(storage.nbytes() for storage in kept.values())


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_saved_is_what_torch_saves(family, dropout):
    config = FAMILIES[family].config_class(**CONFIGS[family])
    for name in FAMILIES[family].dropouts:
        setattr(config, name, dropout)
    lengths = [64] * 4
    # Odd tensors of one layer or of the embeddings are not counted one by one.
    assert saved(config, Rows(lengths, 0), 2, "cpu") == pytest.approx(kept_by_torch(config, lengths), rel=0.06)


def parts(ds_config: str, **changes: str) -> dict[str, float]:
    found = memory(outlined(ds_config, **changes), machines("4xV100").device, 4)
    return {part.name: part.bytes for part in found.parts}


def test_zero_shards_what_its_stage_says():
    trained = parameters_of(outlined("zero1").student)
    state = "fp32 weights and Adam's moments"
    assert parts("zero0")[state] == 12 * trained
    assert parts("zero1")[state] == parts("zero2")[state] == parts("zero3")[state] == 3 * trained
    assert parts("zero1")["gradients"] == 2 * trained
    assert parts("zero2")["gradients"] == parts("zero3")["gradients"] == trained / 2
    assert [parts(f"zero{stage}")["student's weights"] for stage in range(4)] == [2 * trained] * 3 + [trained / 2]
    assert state not in parts("zero2_offload")


def test_the_weights_themselves_are_trained_in_fp32_without_zero():
    trained = parameters_of(outlined("zero0").student)
    assert parts("zero0", precision="fp32")["fp32 weights and Adam's moments"] == 8 * trained
    assert parts("zero0", precision="fp32")["student's weights"] == 4 * trained


def buckets(zero: dict, precision: str = "fp16", device: str = "8xH200", **blocks: object) -> float:
    """Bytes of them, of a ds_config with this block."""
    job = outlined("zero1", ranks=8)
    placement = replace(job.placement, config={"zero_optimization": zero, **blocks}, precision=precision)
    found = memory(replace(job, placement=placement), machines(device).device, 8)
    return {part.name: part.bytes for part in found.parts}.get("buckets of gradients", 0)


def test_buckets_are_whole_whatever_the_model_is():
    fp32_sums = {"data_types": {"grad_accum_dtype": "fp32"}}
    assert [buckets({"stage": stage}) for stage in range(4)] == [0, 1e9, 1e9, 1e9]
    assert buckets({"stage": 2, "overlap_comm": True, "reduce_bucket_size": 2e6}) == 2 * 2 * 2e6
    assert buckets({"stage": 3, "overlap_comm": True}) == 1e9
    assert buckets({"stage": 2, "contiguous_gradients": False}) == 0
    assert buckets({"stage": 1}, **fp32_sums) == 2e9 and buckets({"stage": 2}, **fp32_sums) == 1e9
    # DeepSpeed has another optimiser for this, without them, unless the state is offloaded.
    assert buckets({"stage": 1}, "bf16", **fp32_sums) == 0
    assert buckets({"stage": 1, "offload_optimizer": {"device": "cpu"}}, "bf16", **fp32_sums) == 2e9


def test_an_offload_that_is_null_is_none_and_a_word_is_told():
    assert buckets({"stage": 2, "offload_optimizer": None}) == 1e9
    assert buckets({"stage": 2, "offload_optimizer": {"device": None}, "contiguous_gradients": False}) == 0
    with pytest.raises(ConfigError, match="must be a JSON object"):
        buckets({"stage": 2, "offload_optimizer": "cpu"})


def test_a_cpu_has_no_host_to_offload_to():
    job = outlined("zero2_offload")
    cpu = replace(machines("1xH200").device, type="cpu")
    assert "fp32 weights and Adam's moments" in {part.name for part in memory(job, cpu, 4).parts}


def test_the_total_takes_of_what_stands_apart_the_largest():
    found = Memory((Part("a", 5), Part("b", 3, beside=True), Part("c", 4, beside=True)), 9)
    assert found.total == 9 and found.fits
    assert not found._replace(available=8).fits


def test_parameters_of_bert_base():
    """As Devlin et al. 2019 count them, with the head: 110 M; tied decoder once."""
    assert parameters_of(transformers.BertConfig()) == 109_514_298


def test_a_v100_takes_the_published_micro_batch():
    found = memory(outlined("zero1"), machines("8xV100").device, 8)
    assert found.available == int(15.7 * GIB) and found.fits
