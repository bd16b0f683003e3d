"""A real ablation: two variants with two seeds in one launch, killed in its third run, and gone on with."""

from __future__ import annotations

import json
import subprocess

import pytest
from harness import CLOCKED, ROOT, Material, Started, command, environment, must_pretrain, scalars, tags

from distil.results import Results

STEPS = ("--steps", 12, "--save_every", 2, "--precision", "fp32")
RUNS = ("full-seed7", "without-ce-seed7", "full-seed8", "without-ce-seed8")
ABLATE = "launch/ablate.py"


def arguments(material: Material, out) -> tuple[object, ...]:
    return ("--recipe", material.recipe, "--without", "ce", "--seeds", 2, "--output_dir", out, *STEPS)


def ablate(ranks: int | None, *words: object) -> subprocess.CompletedProcess[str]:
    line = command(ranks, *words, program=ABLATE)
    return subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240)


def figures(run) -> list[tuple[object, ...]]:
    """What a run came to, but for the clock."""
    return [(r.name, r.accuracy, r.perplexity, r.agreement, r.parameters) for r in Results.read(run).rows]


@pytest.mark.faults
def test_killed_and_gone_on_with_it_is_what_single_runs_are(material, tmp_path):
    out = tmp_path / "ablation"
    third = out / RUNS[2] / "checkpoints" / "step-00000004"
    with Started(command(None, *arguments(material, out), program=ABLATE), tmp_path / "log") as run:
        run.wait_for(third.exists)  # and then SIGKILL
    assert [(out / run / "results.json").exists() for run in RUNS] == [True, True, False, False]
    done = (out / RUNS[0] / "results.json").stat().st_mtime_ns

    whole = ablate(None, *arguments(material, out))
    assert whole.returncode == 0, whole.stderr[-3000:]
    assert "run 1 of 4" not in whole.stdout and "run 2 of 4" not in whole.stdout
    assert "run 3 of 4" in whole.stdout and "resuming from" in whole.stdout
    # The plan once, and of a run what it has of its own.
    assert whole.stdout.count("  placement ") == whole.stdout.count("  recipe          tiny: 5 CE") == 1
    assert whole.stdout.index("2 of 4 runs are done in") < whole.stdout.index("  placement ")
    assert "4 runs x 12 steps = 48 steps, about " in whole.stdout and ", to be made: 2" in whole.stdout
    title = f"seed 8, in {out / RUNS[3]}\n\n  recipe          tiny: 2 MLM + 1 COS, T = 2\n"
    assert title in whole.stdout and "  student " not in whole.stdout.partition("run 3 of 4")[2]
    table = whole.stdout[whole.stdout.index("| trained with") :]
    assert (out / "ablation.md").read_text(encoding="utf-8").count(table.partition("\n\n")[0]) == 1

    # The one that was killed, and one that followed others in the same process.
    for run, more in ((RUNS[2], ()), (RUNS[3], ("--alpha_ce", 0))):
        single = tmp_path / run
        must_pretrain(None, "--recipe", material.recipe, "--output_dir", single, "--seed", 8, *STEPS, *more)
        assert figures(out / run) == figures(single)
        for tag in tags(single) - CLOCKED:
            assert scalars(out / run, tag) == scalars(single, tag), (run, tag)
    numbers = json.loads((out / "ablation.json").read_text())
    for variant, name in zip(numbers["variants"], ("full", "without-ce"), strict=True):
        for seed in ("7", "8"):
            student = Results.read(out / f"{name}-seed{seed}").student
            assert variant["by_seed"][seed]["accuracy"] == student.accuracy

    again = ablate(None, *arguments(material, out))
    assert again.returncode == 0 and "run 1 of" not in again.stdout and again.stdout.endswith(table)
    assert (out / RUNS[0] / "results.json").stat().st_mtime_ns == done


@pytest.mark.faults
def test_a_stop_on_two_ranks_ends_it_all_and_the_same_command_goes_on(material, tmp_path):
    out = tmp_path / "ablation"
    out.mkdir()
    (out / "stop").touch()
    stopped = ablate(2, *arguments(material, out))
    assert stopped.returncode == 75 and f"stopped: {out / 'stop'} is there" in stopped.stdout
    assert sorted(out.iterdir()) == []
    whole = ablate(2, *arguments(material, out))
    assert whole.returncode == 0, whole.stderr[-3000:]
    assert "2 rank(s), fp32" in (out / "ablation.md").read_text(encoding="utf-8")
    assert whole.stdout.count("| trained with") == 1  # rank 0 alone speaks


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--without", "cso"), "did you mean cos?"),
        (("--without", "mlm+cos+ce"), "leaves no term"),
        (("--output_dir", "README.md"), "README.md is a file"),
        (("--deepspeed", "no/where.json"), "no/where.json"),
    ],
)
def test_a_mistake_ends_with_one_line_and_its_code(material, words, said):
    result = ablate(None, "--recipe", material.recipe, *words)
    assert result.returncode == 78 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and said in result.stderr
