"""Rates of a machine: what is asked for is measured, by calls of the right shapes, kept, and found again."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from planned import outlined

from distil.errors import ConfigError, DataError
from distil.planning import bench
from distil.planning.bench import Bench
from distil.planning.calibration import LAUNCH, STREAM, UPDATE, Asking, Calibration, keep, kept, key, place_of, units
from distil.planning.machines import Machines, machines
from distil.planning.passes import TENSORS, Attention, Pass
from distil.planning.prediction import predict
from distil.planning.products import Product

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
V100 = machines("1xV100").device
FORWARD = Product("p", "forward", rows=6, inner=4, columns=5)
KERNEL = Attention((3, 5), heads=2, width=4, causal=False, dropout=0.0, kind="forward", times=3)


@pytest.fixture(autouse=True)
def little_time(monkeypatch, tmp_path):
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path))
    monkeypatch.setenv("DISTIL_LOSS", "torch")
    monkeypatch.setattr(bench, "SECONDS", 0.0)
    monkeypatch.setattr(bench, "STREAMED", 2**10)
    monkeypatch.setattr(bench, "UPDATED", 2**10)


@pytest.mark.parametrize("product", [FORWARD, *FORWARD.backward()], ids=lambda product: product.kind)
def test_a_product_is_that_of_its_shape(product):
    made = Bench(CPU, torch.float32)._product(product)()
    # A weight lies as (outputs, inputs), and so does its gradient.
    wanted = (product.rows, product.columns)
    assert made.shape == (wanted[::-1] if product.kind == "weight gradient" else wanted)


def test_a_kind_has_one_rate_whatever_the_rows():
    more = FORWARD._replace(rows=60, times=9)
    assert key(more) == key(FORWARD) and units(more) == 90 * units(FORWARD)
    assert [key(a) == key(b) for a, b in zip(more.backward(), FORWARD.backward(), strict=True)] == [True, True]
    assert len({key(p) for p in (FORWARD, *FORWARD.backward(), FORWARD._replace(inner=3))}) == 4
    assert len({key(k) for k in (KERNEL, KERNEL._replace(dropout=0.1), KERNEL._replace(causal=True))}) == 3


@pytest.mark.parametrize(
    "item",
    [
        FORWARD, KERNEL, KERNEL._replace(kind="backward"), KERNEL._replace(causal=True, dropout=0.1, kind="backward"),
        *(Pass(name, kind, 8, 16) for name, kind in TENSORS), Pass("sum", "backward", 8, 16, bytes=4),
        UPDATE, STREAM, LAUNCH,
    ],
    ids=str,
)  # fmt: skip
def test_every_kind_of_work_can_be_timed(item):
    rate = Bench(CPU, torch.bfloat16).seconds_a_unit(item)
    assert 0 < rate < math.inf


def test_all_that_a_prediction_asks_for_is_what_it_needs():
    job = outlined(ranks=1, steps=10)
    asking = Asking(V100, "fp16")
    predict(job, Machines(V100, 1), asking)
    assert {type(item) for item in asking.items.values()} == {Product, Attention, Pass, str}
    rates = Calibration(V100, "fp16", dict.fromkeys(asking.items, 1e-12))
    assert predict(job, Machines(V100, 1), rates).hours > 0
    wider = replace(job, student=job.teacher)
    with pytest.raises(ConfigError, match="--measure"):
        predict(wider, Machines(V100, 1), Calibration(V100, "fp16", {}))


def test_rates_are_kept_by_precision_and_added_to():
    assert kept(CPU, "bf16") == {}
    keep(CPU, "bf16", {"a": 1.0, "b": 2.0})
    path = keep(CPU, "bf16", {"b": 3.0})
    assert kept(CPU, "bf16") == {"a": 1.0, "b": 3.0} and kept(CPU, "fp32") == {}
    assert json.loads(path.read_text())["torch"] == torch.__version__


def test_a_damaged_file_is_told():
    keep(CPU, "bf16", {"a": 1.0})
    place_of(CPU, "bf16").write_text("{")
    with pytest.raises(DataError, match="delete it"):
        kept(CPU, "bf16")
