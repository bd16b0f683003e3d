"""Machines by name."""

from __future__ import annotations

import pytest

from distil.errors import ConfigError
from distil.planning.machines import DEVICES, GIB, machines, reported_as


@pytest.mark.parametrize(
    ("asked", "name", "count", "nodes"),
    [
        ("8xV100", "V100-SXM2-16GB", 8, 1),
        ("1xH200", "H200-SXM-141GB", 1, 1),
        ("20xA100-80GB", "A100-SXM4-80GB", 20, 3),
        ("8XV100", "V100-SXM2-16GB", 8, 1),
        ("2xv100-sxm2-32gb", "V100-SXM2-32GB", 2, 1),
    ],
)
def test_by_short_and_by_full_name(asked, name, count, nodes):
    found = machines(asked)
    assert (found.device.name, found.count, found.nodes) == (name, count, nodes)


@pytest.mark.parametrize(
    ("asked", "told"),
    [("8xV10", "did you mean V100"), ("8xTPU", "there are V100"), ("V100", "as in 8xV100"), ("0xH200", "say how many")],
)
def test_what_is_none_of_them_is_told(asked, told):
    with pytest.raises(ConfigError, match=told):
        machines(asked)


@pytest.mark.parametrize("device", DEVICES.values(), ids=lambda device: device.name)
def test_figures_are_possible(device):
    assert list(device.flops.values()) == sorted(device.flops.values(), reverse=True), "best first"
    assert all(0 < share.share < 1 and share.source for share in (device.matrix, device.stream))
    assert device.network <= device.link * device.node_gpus
    # By arithmetic alone: no sheet states a device whose matrices outrun its memory by less than 30 or more than 500.
    assert 30 < device.flops["fp16"] / device.bandwidth < 500
    assert "bf16" not in device.flops or device.flops["bf16"] == device.flops["fp16"]


def test_memory_is_what_torch_has_of_it():
    """Less than the gigabytes in a device's name, whether these are powers of 2 or of 10."""
    for device in DEVICES.values():
        stated = int(device.name.rpartition("-")[2].removesuffix("GB"))
        assert 0.97 * stated * 10**9 < device.memory < stated * GIB


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Tesla V100-SXM2-16GB", "V100"), ("NVIDIA A100-SXM4-80GB", "A100-80GB"), ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H200", "H200"), ("NVIDIA H200 NVL", None), ("NVIDIA GH200 480GB", None), ("NVIDIA H100 PCIe", None),
    ],
)  # fmt: skip
def test_by_the_name_that_torch_has(name, found):
    assert reported_as(name) is DEVICES.get(found)


def test_a_v100_has_no_bf16():
    assert machines("1xV100").device.precisions == ("fp16", "fp32")
