"""The table of sizes and speeds: every form on the whole set, figures as they are said, the paper's beside them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from distil.evaluation.compressed import FP32, INT8, forms_of
from distil.evaluation.examples import Evaluation, Example, inputs_of, synthetic
from distil.evaluation.kept import read
from distil.evaluation.loaded import Loaded
from distil.evaluation.speed import Latency
from distil.evaluation.speed_table import COLUMNS, Row, Speeds, measure
from distil.exhibit import Exhibit

SLOW, FAST = Latency(668.0, 440.04, 500, 612.25), Latency(167.0, 100, 120.5, 130)
ROWS = (
    Row("teacher", "fp32", 109_482_240, 438_000_000, SLOW, 0.8934, 1.0, {1: 2.2, 64: 10.0}),
    Row("student", "onnx-int8", 66_362_880, 66_500_000, FAST, 0.87, 0.9875, {1: 9, 64: 1234.5}),
)
SPEEDS = Speeds("1,500 pairs", 1500, 2, "a processor", "2.13", "2026-01-02", ROWS, ("Score is accuracy.",))


def test_the_figures_as_a_person_reads_them():
    assert [dict(zip(COLUMNS, row, strict=True)) for row in SPEEDS.cells()[:2]] == [
        {"": "teacher fp32", "parameters": "109.5 M", "MB": "438.0", "set, s": "668.0", "speed-up": "1.00",
         "p50, ms": "440.0", "p90, ms": "500.0", "p99, ms": "612.2", "score, %": "89.3", "as fp32, %": "100.0"},
        {"": "student onnx-int8", "parameters": "66.4 M", "MB": "66.5", "set, s": "167.0", "speed-up": "4.00",
         "p50, ms": "100.0", "p90, ms": "120.5", "p99, ms": "130.0", "score, %": "87.0", "as fp32, %": "98.8"},
    ]  # fmt: skip
    assert SPEEDS.cells()[2][:5] == ("paper: BERT-base", "110 M", "-", "668", "1.00")
    assert SPEEDS.cells()[3][:5] == ("paper: DistilBERT", "66 M", "207 (app)", "410", f"{668 / 410:.2f}")
    columns, rows = SPEEDS.throughput_table()
    assert columns == ("sequences/s, batches of", "1", "64")
    assert rows == [("teacher fp32", "2.2", "10.0"), ("student onnx-int8", "9.0", "1,234.5")]


def test_the_text_says_what_was_done():
    for said in ("1,500 pairs", "2 threads of a processor", "torch 2.13", "2026-01-02", "arXiv 1910.01108", "Score is"):
        assert said in SPEEDS.note, said
    for said in ("tokenising is not timed", "their speed-up against its BERT", "66 M parameters in fp32 are 265 MB"):
        assert said in SPEEDS.note, said
    assert "tensors" not in SPEEDS.note  # of a file all of these are
    int8 = replace(SPEEDS, rows=(*ROWS, replace(ROWS[1], form="int8")))
    assert "MB are 10^6 bytes of a file, of int8 those of its tensors." in int8.note
    table, note, rates, note_of_rates = SPEEDS.text().split("\n\n")
    assert (note, note_of_rates) == (SPEEDS.note, SPEEDS.throughput_note) and table != rates


@pytest.mark.parametrize(
    ("sequences", "sizes", "said"),
    [
        (1500, (1, 64), "Of the set's first 128 sequences, as far as they fill batches, sorted by length"),
        (20, (1,), "Of the set's 20 sequences, again and again up to 128, as far as they fill batches, sorted"),
        (1500, (1, 256), "as far as they fill batches (of larger batches as many as fill one), sorted"),
    ],
)
def test_what_throughput_is_of(sequences, sizes, said):
    rows = tuple(replace(row, throughput=dict.fromkeys(sizes, 1.0)) for row in ROWS)
    note = replace(SPEEDS, sequences=sequences, rows=rows).throughput_note
    assert said in note and "2 threads" in note and "at least 4 batches of each size" in note


def test_exhibits_of_a_report(tmp_path):
    made = SPEEDS.exhibits("evaluate.py speed")
    assert list(made) == ["speed", "speed_throughput"]
    for name, exhibit in made.items():
        assert Exhibit.read(exhibit.write(tmp_path, name)) == exhibit and exhibit.command == "evaluate.py speed"
    assert json.loads(json.dumps(SPEEDS.values()))["rows"][0]["latency"]["p50"] == 440.04


@pytest.fixture(scope="module")
def measured(folder_of):
    """A teacher and a narrower student on the same random ids; the student's ids are right once of every two."""
    torch.set_num_threads(1)
    models = [Loaded.of(t, str(folder_of("bert", **c))) for t, c in (("teacher", {}), ("student", {"hidden_size": 16}))]
    of = synthetic(60, 40, 23)
    scored = Evaluation(of.what, of.examples, lambda said: len(said) / 46, "half of what there is")
    forms = [forms_of(m, [FP32, INT8], inputs_of(of.examples[:1], m.pad_id), 1) for m in models]
    return models, of, measure([(m, scored, f) for m, f in zip(models, forms, strict=True)], [1, 4], 1, ["Noted."])


def test_every_form_of_every_model_has_a_row(measured):
    models, of, speeds = measured
    assert [(row.model, row.form) for row in speeds.rows] == [
        (t, f) for t in ("teacher", "student") for f in (FP32, INT8)
    ]
    assert [row.parameters for row in speeds.rows[::2]] == [
        sum(p.numel() for p in model.model.parameters()) for model in models
    ]
    assert [row.bytes for row in speeds.rows[::2]] == [model.file_bytes for model in models]
    assert speeds.sequences == 23 and speeds.threads == 1 and speeds.what == of.what
    assert all(row.throughput.keys() == {1, 4} and row.latency.p50 <= row.latency.p99 for row in speeds.rows)


def test_the_set_is_evaluated_whole(measured):
    _, _, speeds = measured
    assert [row.score for row in speeds.rows] == [0.5] * 4  # 23 sequences of 46, neither fewer nor any twice
    assert speeds.notes[0].startswith("Score is half of what there is. As fp32: ") and speeds.notes[1] == "Noted."


def test_forms_are_held_against_their_own_original(measured):
    models, of, speeds = measured
    assert [row.alike for row in speeds.rows[::2]] == [1.0, 1.0]
    for model, row in zip(models, speeds.rows[1::2], strict=True):
        original, small = [], []
        forms = forms_of(model, [FP32, INT8], inputs_of(of.examples[:1], model.pad_id), 1)
        for example in of.examples:
            inputs = inputs_of([example], model.pad_id)
            for form, said in zip(forms, (original, small), strict=True):
                said += read("mlm", form.run(inputs), inputs)
        assert row.alike == (np.concatenate(small) == np.concatenate(original)).mean()
        assert 0.5 < row.alike < 1  # of random weights some guesses are close; a form of other weights would have 2 %


def test_models_whose_sequences_are_not_as_many(folder_of):
    """Windows of a long context, say, that two tokenizers cut differently."""
    models = [Loaded.of(t, str(folder_of("bert", seed=s))) for s, t in enumerate(("teacher", "student"))]
    sets = [Evaluation("x", tuple(Example((i, i + 1)) for i in range(n))) for n in (3, 20)]
    forms = [forms_of(m, [FP32], inputs_of(sets[0].examples, m.pad_id), 1) for m in models]
    speeds = measure(list(zip(models, sets, forms, strict=True)), [], 1)
    assert [row.score for row in speeds.rows] == [None, None] and speeds.exhibits("")["speed_throughput"] is None
    assert speeds.cells()[0][8] == "-" and len(speeds.text().split("\n\n")) == 2
