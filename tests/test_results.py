"""The table of a run: aligned, the same after writing and reading, refused when damaged."""

from __future__ import annotations

import json
import math

import pytest

from distil.errors import DataError
from distil.results import RESULTS, Results, Row

RESULT = Results(
    step=1234,
    predicted=567,
    rows=(
        Row("teacher", 0.5849, 7.25, 1.0, 22_713_216, 12.34),
        Row("student before", 0.0, 123456.78, 0.012, 17_000_000, 6.789),
        Row("student after", 0.4, math.inf, None, 0, 100.0),
    ),
)
EMPTY = Results(step=1, predicted=0, rows=(Row("student after", None, None, None, 1_500_000, 2.0),))


def columns(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_figures_as_a_person_reads_them():
    assert columns(RESULT.table()) == [
        ["", "held-out accuracy", "perplexity", "agreement", "parameters", "ms/sequence"],
        ["-" * n for n in (14, 17, 10, 9, 10, 11)],  # as wide as each column's widest cell
        ["teacher", "58.5 %", "7.2", "100.0 %", "22.7 M", "12.3"],
        ["student before", "0.0 %", "123,456.8", "1.2 %", "17.0 M", "6.8"],
        ["student after", "40.0 %", "inf", "-", "0.0 M", "100.0"],
    ]


def test_what_was_not_measured_is_a_dash():
    assert columns(EMPTY.table())[2] == ["student after", "-", "-", "-", "1.5 M", "2.0"]


@pytest.mark.parametrize("result", [RESULT, EMPTY])
def test_columns_are_aligned(result):
    lines = result.table().splitlines()
    assert len(lines) == 2 + len(result.rows)
    bars = [[i for i, c in enumerate(line) if c == "|"] for line in lines]
    assert all(bar == bars[0] for bar in bars) and len(bars[0]) == 7
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines)


@pytest.mark.parametrize("result", [RESULT, EMPTY])
def test_written_and_read_again(result, tmp_path):
    result.write(tmp_path)
    assert Results.read(tmp_path) == result
    assert [path.name for path in tmp_path.iterdir()] == [RESULTS]


def test_writing_again_replaces(tmp_path):
    RESULT.write(tmp_path)
    EMPTY.write(tmp_path)
    assert Results.read(tmp_path) == EMPTY


GOOD = {"name": "t", "accuracy": 0.5, "perplexity": 2.0, "agreement": None, "parameters": 3, "milliseconds": 1.0}


@pytest.mark.parametrize(
    "damaged",
    [
        None, b"", b'{"step": 1, "predicted": 2, "rows": [', b"[]", b"null", b"\xff\xfe", b'{"step": 1, "rows": []}',
        b'{"step": 1, "predicted": 2, "rows": [3]}', b'{"step": 1, "predicted": 2, "rows": null}',
        json.dumps({"step": 1, "predicted": 2, "rows": [{**GOOD, "more": 1}]}).encode(),
        json.dumps({"step": 1, "predicted": 2, "rows": [{k: v for k, v in GOOD.items() if k != "name"}]}).encode(),
    ],
)  # fmt: skip
def test_damaged_results_are_refused(damaged, tmp_path):
    if damaged is not None:
        (tmp_path / RESULTS).write_bytes(damaged)
    with pytest.raises(DataError) as caught:
        Results.read(tmp_path)
    assert str(tmp_path / RESULTS) in str(caught.value) and "remove it" in str(caught.value)


def test_the_same_file_undamaged_is_read(tmp_path):
    (tmp_path / RESULTS).write_text(json.dumps({"step": 1, "predicted": 2, "rows": [GOOD]}))
    assert Results.read(tmp_path) == Results(1, 2, (Row("t", 0.5, 2.0, None, 3, 1.0),))
