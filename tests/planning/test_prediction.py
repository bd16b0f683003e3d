"""Seconds, energy and what ranks send follow from products, passes and rates by arithmetic."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from planned import outlined

from distil.planning.communication import bandwidth, communication
from distil.planning.machines import Device, Machines, machines
from distil.planning.memory import parameters_of
from distil.planning.passes import Attention, Pass
from distil.planning.prediction import predict
from distil.planning.products import Product, Rows, distillation, flops
from distil.planning.rates import Sheet, filled

V100 = machines("8xV100")


@dataclass(frozen=True)
class OnlyProducts:
    """A device that does nothing but multiply, a teraflop in a second."""

    device: Device
    precision: str

    def product(self, product: Product) -> float:
        return product.flops / 1e12

    def attention(self, attention: Attention) -> float:
        return attention.flops / 1e12

    def pass_(self, of: Pass) -> float:
        return 0.0

    update = stream = launches = lambda self, _: 0.0


def test_of_a_device_that_only_multiplies_all_its_speed_is_used():
    job = outlined(ranks=1)
    device = replace(V100.device, flops={"fp16": 1e12, "fp32": 1e12})
    found = predict(job, Machines(device, 1), OnlyProducts(device, "fp16"))
    assert found.mfu == pytest.approx(1.0)
    assert found.flops_a_token == pytest.approx(664.1e6, rel=1e-4)
    assert found.hours == pytest.approx(found.flops_a_token * job.tokens / 1e12 / 3600)
    assert found.kwh == pytest.approx(found.hours * 3.5 / 8)  # an eighth of a node of 3,500 W


def test_a_rate_of_a_sheet_is_the_slower_of_products_and_bytes():
    sheet = Sheet(V100.device, "fp16")
    large = Product("p", "forward", 4096, 4096, 4096)
    assert sheet.product(large) == pytest.approx(2 * 4096**3 / 62.5e12 * 1040 / 1024)  # 1,024 tiles in 13 waves of 80
    thin = Product("p", "forward", 4096, 1, 4096)
    assert sheet.product(thin) == pytest.approx(2 * (4096**2 + 2 * 4096) / (900e9 * 4.3 / 4.8))


@pytest.mark.parametrize(
    ("product", "share"),
    [
        (Product("p", "forward", 1280, 512, 1024), 1.0),  # 80 tiles
        (Product("p", "forward", 1281, 512, 1024), 1281 / 1280 * 80 / 160),  # 8 more, in a wave of their own
        (Product("p", "weight gradient", 128, 4096, 1280), 1.0),  # 10, each in 8 parts
        (Product("p", "weight gradient", 128, 1024, 1280), 0.25),  # the inner dimension is too short for more than 2
    ],
)
def test_a_product_fills_a_gpu_by_tiles_and_waves(product, share):
    assert filled(product, 80) == pytest.approx(share)


def test_without_a_teacher_half_the_steps_take_less():
    whole, half, none = (
        predict(outlined(**changes), V100, Sheet(V100.device, "fp16"))
        for changes in ({}, {"kd_until": 0.5}, {"alpha_ce": 0.0, "alpha_cos": 0.0})
    )
    assert half.flops_a_token == pytest.approx((whole.flops_a_token + none.flops_a_token) / 2, rel=1e-3)
    assert none.micro.matrices < half.micro.matrices < whole.micro.matrices


def test_products_are_all_of_the_step_and_nothing_twice():
    """Products and attention kernels come to the FLOPs of the step, which ``products`` counts in its own way."""
    job = outlined(ranks=1)
    found = predict(job, Machines(V100.device, 1), OnlyProducts(V100.device, "fp16")).micro
    rows = Rows([512] * 8, 615)
    both = distillation(job.student, job.teacher, job.recipe.loss, rows)
    assert (found.matrices + found.attention) * 1e12 == pytest.approx(sum(map(flops, both)))


def sent(stage: int, ranks: int = 8, accumulation: int = 4, backward: float = 1.0, **zero: object):
    config = {"zero_optimization": {"stage": stage, **zero}}
    return communication(10**8, config, "fp16", accumulation, Machines(V100.device, ranks), backward)


def test_bytes_that_a_rank_sends():
    """2 bytes a parameter, by (R - 1) / R for each half of an all-reduce: of a gather or a scatter one half."""
    half = 2e8 * 7 / 8
    assert [sent(stage).sent / half for stage in range(4)] == [2, 3, 2 * 4 + 1, 4 + 2 * 4]
    assert sent(1, ranks=1).sent == sent(1, ranks=1).seconds == sent(1, ranks=1).share_hidden == 0


def test_nothing_is_hidden_unless_buckets_fill_before_the_end():
    assert sent(1).hidden == sent(2).hidden == 0
    assert sent(2, overlap_comm=True).hidden == 0, "one bucket takes the whole model"
    some = sent(2, overlap_comm=True, reduce_bucket_size=25_000_000)
    assert some.share_hidden == pytest.approx(0.75 * 8 / 9, rel=0.01)  # three of four buckets, none of the gather
    assert sent(2, overlap_comm=True, reduce_bucket_size=25_000_000, backward=0.0).hidden == 0
    assert 0 < sent(3).share_hidden < 1


def test_more_than_a_node_meet_over_its_network():
    one, two = (Machines(V100.device, count) for count in (8, 16))
    assert bandwidth(one) > bandwidth(two) == pytest.approx(V100.device.network * 0.8)


def test_an_optimiser_on_the_host_takes_longer():
    here, there = (
        predict(outlined(name, ranks=8), V100, Sheet(V100.device, "fp16")) for name in ("zero2", "zero2_offload")
    )
    assert there.optimizer > 5 * here.optimizer and there.micro == here.micro


def test_relations_of_all_heads_and_sequences_are_one_operation():
    plain, related = (
        predict(outlined(**changes), V100, Sheet(V100.device, "fp16")).micro
        for changes in ({}, {"alpha_relations": 1.0})
    )
    assert related.matrices > plain.matrices
    assert related.host - plain.host == pytest.approx(3 * V100.device.launch_seconds)


def test_ranks_share_the_work_of_a_step():
    one, eight = (
        predict(outlined(ranks=ranks), Machines(V100.device, ranks), Sheet(V100.device, "fp16")) for ranks in (1, 8)
    )
    assert 7.9 < eight.tokens_a_second / one.tokens_a_second < 8, "all but what is sent"
    assert eight.optimizer < one.optimizer
    assert parameters_of(eight.outline.student) == 66_985_530
