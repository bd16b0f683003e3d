"""The program: what it prints, what it refuses."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from planned import ROOT, outlined

from distil.errors import ConfigError, DataError
from distil.planning.here import of_this
from distil.planning.machines import machines
from distil.planning.memory import memory
from distil.planning.options import parse
from distil.planning.plan import plan
from distil.planning.prediction import predict
from distil.planning.rates import Sheet
from distil.planning.table import duration, micro_batches, table


def planned(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "launch/plan.py"), *arguments]
    variables = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)


def test_the_published_job_on_a_sheet():
    done = planned(
        "--recipe", "distilbert-base-uncased", "--gpus", "8xV100", "--price_kwh", "0.5", "--price_gpu_hour", "2"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = dict(re.findall(r"(?m)^  (\S[^\n]{0,15}?)  +(\S.*)$", done.stdout))
    assert {"tokens", "FLOPs", "communication", "memory", "electricity", "rent"} <= rows.keys()
    assert rows["speed"].startswith("predicted") and "1.05e+10 in 5,007 steps" in rows["tokens"]
    kwh, price = (float(number) for number in re.findall(r"[\d.]+", rows["electricity"])[:2])
    assert price == pytest.approx(kwh / 2, abs=0.03)  # of rounded figures


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--gpus", "8xV10"], "did you mean V100"),
        (["--tokens", "-1"], "tokens is -1; it must be above 0"),
        (["--tokens", "inf"], "tokens is inf"),
        (["--tokens", "nan"], "tokens is nan"),
        (["--tokens", "0.5"], "tokens is 0.5; it must be 1 or more"),
        (["--price_kwh", "inf"], "price_kwh is inf"),
        (["--measure", "inf"], "measure is inf"),
        (["--gpus", "8xV100", "--measure"], "--gpus this"),
        (["--gpu", "8xV100"], "did you mean --gpus"),
    ],
)
def test_what_cannot_be_planned_is_refused_before_anything_is_loaded(arguments, told):
    with pytest.raises(ConfigError, match=re.escape(told)):
        parse(arguments, "")


def test_a_precision_that_a_device_has_not_is_told():
    how = ["--recipe", "distilbert-base-uncased", "--gpus", "8xV100", "--precision", "bf16"]
    with pytest.raises(ConfigError, match="V100.* fp16, fp32"):
        list(plan(*parse(how, "")))


def test_a_text_of_unknown_size_is_asked_for():
    with pytest.raises(DataError, match="--tokens"):
        list(plan(*parse(["--gpus", "8xV100", "--recipe", "distilgpt2"], "")))


def test_where_it_does_not_fit_it_says_what_to_change():
    how = ["--recipe", "distilbert-base-uncased", "--gpus", "8xV100"]
    text = "".join(plan(*parse([*how, "--micro_batch_size", "512"], "")))
    assert "does NOT fit" in text and "half the --micro_batch_size" in text
    assert "does NOT fit" not in "".join(plan(*parse(how, "")))


def test_this_machine_is_measured_and_held_against_real_steps(folder_of, tmp_path):
    how = ["--teacher", str(folder_of("bert")), "--tokens", "1e4", "--student_layers", "0", "1"]
    how += ["--max_length", "8", "--batch_size", "8", "--micro_batch_size", "4", "--precision", "fp32"]
    done = planned(*how, "--measure", "0.01", DISTIL_CACHE=str(tmp_path), DISTIL_LOSS="torch")
    assert done.returncode == 0, done.stderr
    found = re.search(r"2 micro-batches .* in fp32: predicted [\d,]+ tokens/s, measured [\d,]+, ", done.stdout)
    assert found and len(list((tmp_path / "rates").iterdir())) == 1


def test_several_machines_have_their_prices_and_what_is_assumed_once():
    how = ["--recipe", "distilbert-base-uncased", "--gpus", "1xA100", "8xA100"]
    plain, priced = (
        "".join(plan(*parse([*how, *more], ""))) for more in ([], ["--price_kwh", "0.5", "--price_gpu_hour", "2"])
    )
    assert "electricity" not in plain and "rent" not in plain
    assert "electricity at 0.5 a kWh" in priced and "rent at 2 a GPU and hour" in priced
    for told in ("tokens, as told", "published shape", "(assumed)"):
        assert priced.count(told) == 1
    for row in priced.splitlines()[2:4]:
        cells = [cell.strip() for cell in row.strip("| ").split("|")]
        assert float(cells[-2]) == pytest.approx(float(cells[-3]) / 2, abs=0.26)  # of kWh in whole ones
        count, hours = int(cells[0].split()[0]), float(cells[4].removesuffix(" h"))
        assert float(cells[-1]) == pytest.approx(2 * count * hours, abs=0.11 * count)  # of tenths of an hour


@pytest.mark.parametrize(("hours", "told"), [(1.5, "1.5 h"), (0.5, "30.0 min"), (0.01, "36.0 s")])
def test_durations_are_of_one_at_least(hours, told):
    assert duration(hours) == told


def test_devices_here_have_the_links_and_watts_of_their_sheet():
    sheet = machines("8xH200").device
    found = of_this("NVIDIA H200", 8, ("bf16",), 2**37, "cuda").device
    assert (found.link, found.network, found.watts) == (sheet.link, sheet.network, sheet.watts)
    assert found.memory == 2**37 and of_this("A CPU", 1, ("fp32",), 2**34, "cpu").device.watts == 0
    with pytest.raises(ConfigError, match="2 x NVIDIA T4.*CUDA_VISIBLE_DEVICES=0"):
        of_this("NVIDIA T4", 2, ("fp16",), 2**34, "cuda")


def test_of_unknown_watts_the_price_is_left_out_with_a_word():
    of = of_this("A CPU", 1, ("fp16",), 2**34, "cpu")
    job, asked = outlined(ranks=1, steps=10), parse(["--price_kwh", "0.5"], "")[0]
    text = table(predict(job, of, Sheet(of.device, "fp16")), memory(job, of.device, 1), asked, [])
    assert re.search("electricity +unknown, and its price left out: .* A CPU", text)
    assert micro_batches(1) == "1 micro-batch" and micro_batches(1024) == "1,024 micro-batches"


def test_the_readme_has_this_plan():
    """Of the published job on four machines, row by row; what the public code took stands beside it, as published."""
    readme = (ROOT / "README.md").read_text()
    command = re.search(r"launch/plan.py (--recipe .*--gpus \S+ \S+ .*?) +#", readme)[1]
    lines = "".join(plan(*parse(command.split(), ""))).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + 4
    for row in rows:
        assert row in readme
    assert re.search(r"\| 8 x V100 +\| published +\| 32,000 ", readme)
