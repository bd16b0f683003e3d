"""A job settled from a recipe: what does not go together is refused, and what is counted is what batches hold."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from families import LENGTH, make_job, refused, settled
from harness import make_teacher

from distil.kernels import IGNORED
from distil.summary import describe, differing

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = ("bert", "roberta", "gpt2", "narrow")
NO_MASKS = {"mlm_fraction": 0.0, "mask_share": 0.0, "keep_share": 0.0, "mlm_smoothing": 0.0}
RELATIONS = {"alpha_relations": 1.0, "relation_heads": 8}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny job of each case."""
    root = tmp_path_factory.mktemp("jobs")
    for case in CASES:
        make_job(root / case, case)
    return root


@pytest.mark.parametrize("case", CASES)
def test_the_tiny_jobs_are_settled_as_they_are(jobs, case):
    job = settled(jobs / case)
    assert job.vocabulary is None and job.teacher == str(jobs / case / "teacher")


@pytest.mark.parametrize(
    ("case", "changes", "said"),
    [
        ("gpt2", {"alpha_mlm": 1.0}, "alpha_mlm is 1, but its teacher, a gpt2, .* --alpha_mlm 0 --alpha_clm 2 --st"),
        ("gpt2", NO_MASKS | {"mlm_fraction": 0.15}, "mlm_fraction is 0.15, .* such as distilgpt2, or give --mlm_f"),
        ("bert", {"alpha_clm": 0.5}, "alpha_clm is 0.5, but its teacher, a bert, .* or give --alpha_clm 0"),
        ("bert", {"mlm_fraction": 0.0}, "mlm_fraction is 0, but a bert learns .* tokens: give --mlm_fraction 0.15"),
        ("bert", NO_MASKS, r"mlm_fraction is 0, but .*: give the recipe a table \[masking\], as distilbert-base-unc"),
        ("bert", {"student": "gpt2"}, "student gpt2: it predicts the next token, .* a bert, masked tokens; give --s"),
        ("gpt2", {"student": "bert"}, "student bert: it predicts masked tokens, .*; give --student same, .*: gpt2"),
        ("bert", {"student": "distilbrt"}, r"no such family \(did you mean distilbert\?\); there are: bert.* or same"),
        ("bert", {"student": "modernbert"}, "student modernbert: .* layer_types .*, and a bert has none; give --s"),
        ("roberta", {"student": "distilbert"}, "distilbert .* LayerNorm epsilon 1e-12, the teacher 1e-05; give --s"),
        ("bert", {"student_layers": (0, 4)}, "layer 4 is out of range: the teacher has 4 layers, 0 to 3"),
        ("bert", {"student_hidden": 101}, "101 makes no heads .* --student_hidden 96 or 104, or --stu"),
        ("bert", {"student_heads": 7}, "32 is no multiple of 7 .*; give --student_hidden 35 or --student_heads 8"),
        ("narrow", {"hidden_layers": ("0:1", "3:3")}, "hidden_layers: layer 3 .*: the student has 3 layers, 0 to 2"),
        ("narrow", {"hidden_layers": ("0:4",)}, "hidden_layers: layer 4 .*: the teacher has 4 layers, 0 to 3"),
        ("bert", RELATIONS | {"relation_layer": 4}, "relation_layer: layer 4 .*: the teacher has 4 layers"),
        ("bert", RELATIONS | {"relation_heads": 48}, "48 relation heads do not divide the width 32 of the student's"),
        # 3 and 6 divide the student's width too, but not the teacher's, 32.
        ("bert", RELATIONS | {"student_hidden": 6, "student_heads": 1}, "8 relation .* width 6 .* --relation_heads 2$"),
        ("bert", RELATIONS | {"student_hidden": 40}, None),
        ("bert", RELATIONS | {"relation_layer": 3}, None),
        ("narrow", {"hidden_layers": ("2:3",)}, None),
        ("bert", {"student_layers": (3, 3, 0, 1, 2)}, None),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(jobs, case, changes, said):
    if said is None:  # next to what is refused: this fits
        settled(jobs / case, **changes)
    else:
        assert re.search(said, refused(jobs / case, **changes))


@pytest.mark.parametrize("case", ["bert", "roberta", "gpt2"])
def test_a_sequence_is_no_longer_than_there_are_positions(jobs, case):
    # RoBERTa's table begins with the pad and what is before it: its rows are more than its positions.
    rows = json.loads((jobs / case / "teacher" / "config.json").read_text())
    rows = rows.get("max_position_embeddings") or rows["n_positions"]
    assert (rows > LENGTH) is (case == "roberta")
    assert settled(jobs / case, max_length=LENGTH).recipe.data.max_length == LENGTH
    for length in range(LENGTH + 1, rows + 2):
        said = refused(jobs / case, max_length=length)
        assert said.startswith(f"max_length is {length}, teacher {jobs / case / 'teacher'} has {LENGTH} positions")
        assert f"give --max_length {LENGTH}" in said


@pytest.mark.parametrize("case", ["bert", "roberta", "gpt2"])
def test_counts_are_what_batches_hold(jobs, case):
    job = settled(jobs / case, batch_size=12)
    batcher, seen = job.batcher(), set()
    for step in (0, 1, 5):
        numbers = job.global_batch(step * job.micro_batches)
        assert len(numbers) == job.micro_batches == 3
        batches = [batcher.batch(number) for number in numbers]
        attended = sum(len(batch.input_ids_N) for batch in batches)
        predicted = sum(int((batch.labels_N != IGNORED).sum()) for batch in batches)
        assert job.counts(numbers) == (attended, predicted)
        seen.add((attended, predicted))
        if case == "gpt2":
            assert predicted == attended - sum(len(batch.cu_seqlens_B1) - 1 for batch in batches)
    assert len(seen) > 1  # global batches differ, so a constant would not do


@pytest.mark.parametrize(
    ("share", "steps", "taught"), [(1.0, 30, 30), (0.6, 30, 18), (0.33, 10, 3), (0.37, 10, 4), (0.5, 5, 3)]
)
def test_steps_with_a_teacher(jobs, share, steps, taught):
    job = settled(jobs / "bert", kd_until=share, steps=steps)
    assert (job.kd_steps, job.total_steps) == (taught, steps)
    # A run that stops early does not bend the schedule.
    assert settled(jobs / "bert", max_steps=5, kd_until=share, steps=steps).kd_steps == taught


@pytest.mark.parametrize(("share", "steps"), [(0.001, 30), (0.99, 30), (0.4, 1)])
def test_a_share_of_no_step_or_of_all_is_refused(jobs, share, steps):
    said = refused(jobs / "bert", kd_until=share, steps=steps)
    assert said == f"kd_until is {share}: of {steps} steps that is none or all; give --kd_until 1, or another"


def test_where_a_run_ends(jobs):
    whole = settled(jobs / "bert", epochs=3)
    assert whole.total_steps == whole.stop_step == -(-3 * whole.mixture.micro_batches // whole.micro_batches)
    stopped = settled(jobs / "bert", max_steps=5, epochs=3)
    assert (stopped.total_steps, stopped.stop_step) == (whole.total_steps, 5)
    assert settled(jobs / "bert", max_steps=10**6, epochs=3).stop_step == whole.total_steps


def rows_of(plan: str) -> dict[str, str]:
    return {line[2:18].strip(): line[18:] for line in plan.splitlines()}


def test_the_plan_says_loss_and_shapes(jobs):
    plan = rows_of(describe(settled(jobs / "narrow")))
    assert plan["recipe"] == (
        "tiny: 5 CE + 2 MLM + 1 COS + 0.01 MSE + 0.5 HIDDEN + 1 RELATIONS, T = 2; no teacher after step 18"
    )
    assert plan["teacher"].startswith(f"{jobs / 'narrow' / 'teacher'}, 4 layers of width 32 (4 heads, feed-forward 48)")
    assert plan["student"].startswith("distilbert of layers 0 2 3, 3 layers of width 16 (2 heads, feed-forward 20), ")
    assert plan["schedule"].startswith("30 steps = 1.25 epochs of 96 micro-batches, about ")
    assert "stops" not in plan["schedule"]
    assert "this run stops at 7" in rows_of(describe(settled(jobs / "narrow", max_steps=7)))["schedule"]


def test_the_plan_counts_the_students_parameters(jobs):
    job = settled(jobs / "bert", student_depth=60)
    count = sum(p.numel() for p in job.make_student(job.load_teacher(torch.float32)[0]).model.parameters())
    assert count > 400_000  # or the one decimal would not tell
    assert rows_of(describe(job))["student"].endswith(f", {count / 1e6:.1f} M parameters")


def test_the_plan_says_where_weights_come_from(jobs):
    plan = rows_of(describe(settled(jobs / "bert", initial_weights="random", kd_until=1.0)))
    assert plan["student"].startswith("distilbert of random weights, 2 layers") and "no teacher" not in plan["recipe"]
    plan = rows_of(describe(settled(jobs / "bert", alpha_ce=0.0, alpha_cos=0.0)))
    assert plan["recipe"] == "tiny: 2 MLM, T = 2" and "teacher" not in plan
    assert plan["initial weights"].startswith(str(jobs / "bert" / "teacher"))
    assert rows_of(describe(settled(jobs / "gpt2")))["recipe"] == "tiny: 5 CE + 2 CLM + 1 COS, T = 2"


def test_the_plan_says_how_a_global_batch_is_made(jobs):
    job = settled(jobs / "bert", ranks=2)
    first = job.counts(range(4)).attended
    assert rows_of(describe(job))["global batch"] == (
        f"4 micro-batches = 2 accumulated x 2 rank(s), {first:,} tokens in the first"
    )


def test_what_a_job_has_of_its_own(jobs):
    whole = settled(jobs / "bert")
    assert differing(settled(jobs / "bert", seed=8), whole) == ""
    less = settled(jobs / "bert", alpha_ce=0.0)
    assert list(rows_of(differing(less, whole))) == ["recipe"] and " CE " not in differing(less, whole)
    random = rows_of(differing(settled(jobs / "bert", initial_weights="random"), whole))
    assert list(random) == ["student"] and "random weights" in random["student"]


def test_an_identity_is_what_decides_the_weights(jobs, tmp_path):
    bert = jobs / "bert"
    one = settled(bert).identity()
    assert json.loads(json.dumps(one)) == one  # as a checkpoint keeps it
    assert settled(bert, max_steps=3, ranks=2, save_every=1, log_every=7).identity() == one
    for changes, differ in (
        ({"seed": 8}, {"mathematics"}),
        ({"student_layers": (0, 3)}, {"mathematics"}),
        ({"store": (str(jobs / "bert" / "store-heldout"),)}, {"mathematics", "store"}),
    ):
        other = settled(bert, **changes).identity()
        assert {name for name in one if other[name] != one[name]} == differ, changes
    # Weights of the teacher are told by what they are, not by where they lie.
    shutil.copytree(bert / "teacher", tmp_path / "moved")
    assert settled(bert, teacher=str(tmp_path / "moved")).identity()["teacher"] == one["teacher"]
    make_teacher(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "moved")
    assert settled(bert, teacher=str(tmp_path / "moved")).identity()["teacher"] != one["teacher"]
