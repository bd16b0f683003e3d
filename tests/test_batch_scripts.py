"""What the batch scripts start, without a SLURM to submit them to (tests/slurm has one)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import distil

ROOT = Path(distil.__file__).parents[1]
RECIPE = "distilbert-base-uncased"


@pytest.mark.parametrize("script", ["pretrain_8xv100.sh", "pretrain_multinode.sh"])
@pytest.mark.parametrize(
    ("given", "recipe", "folder"),
    [
        ([], RECIPE, f"runs/{RECIPE}"),
        (["--recipe", "distilgpt2"], "distilgpt2", "runs/distilgpt2"),
        (["--recipe=distilroberta-base", "--seed", "7"], "distilroberta-base", "runs/distilroberta-base"),
        (["--recipe", "my own/recipe.toml"], "my own/recipe.toml", "runs/recipe"),
        (["--recipe", "distilgpt2", "--output_dir", "elsewhere"], "distilgpt2", "elsewhere"),
    ],
)
def test_every_recipe_has_a_folder_of_its_own(script, given, recipe, folder):
    text = (ROOT / "slurm" / script).read_text()
    assert "\ntrain python" in text
    shown = text.replace("\ntrain python", "\nprintf '%s\\n' python")  # what it would start, a word a line
    job = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1"}
    result = subprocess.run(
        ["bash", "-s", "--", *given], input=shown, env=os.environ | job, capture_output=True, text=True, check=True
    )
    words = result.stdout.splitlines()
    assert (
        words[:3] == ["python", "slurm/start_node.py", "launch/pretrain.py"]
        and words[len(words) - len(given) :] == given
    )
    taken = {name: value for name, value in zip(words, words[1:], strict=False) if name.startswith("--")}
    assert taken.get("--recipe", "") == recipe or f"--recipe={recipe}" in words
    assert taken["--output_dir"] == folder


@pytest.mark.parametrize(
    ("given", "folder"), [(["--model", "m"], "runs/suite"), (["--model", "m", "--output_dir=my suite"], "my suite")]
)
def test_an_element_of_a_suite_does_its_share(given, folder):
    """What it would start, and what it takes for progress: anything that any run of the suite has come to."""
    text = (ROOT / "slurm" / "finetune_glue.sh").read_text()
    shown = text.replace("\ntrain python", "\nprintf '%s\\n' python") + '\nhow_far "$@"\necho job "$job"\n'
    array = {"SLURM_ARRAY_JOB_ID": "20", "SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "9"}
    job = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "23", "SLURM_JOB_NUM_NODES": "1", **array}
    words = bash(shown, given, job)
    assert words[:4] == ["python", "slurm/start_node.py", "launch/evaluate.py", "suite"]
    started = words[: words.index("m") + len(given) - 1]
    assert started[-len(given) :] == given and started[started.index("--only") + 1] == "3/9"
    progress = words[len(started) : -1]
    assert words[-1] == "job 20_3" and len(progress) == 2
    if folder != "runs/suite":  # what stands first is a default
        assert all(path.startswith(f"{folder}/*/*/") for path in progress)


def test_a_figure_more_of_the_matrix_is_progress(tmp_path):
    text = (ROOT / "slurm" / "finetune_glue.sh").read_text()
    shown = text[: text.index("\ntrain python")] + '\nhow_far "$@"\n'
    job = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "23", "SLURM_JOB_NUM_NODES": "1"}
    kept = tmp_path / "sst2" / "student-seed1" / "cross.json"
    kept.parent.mkdir(parents=True)
    found = [bash(shown, ["--output_dir", str(tmp_path)], job)]
    for text in ("{}", "{ }"):
        kept.write_text(text)
        found.append(bash(shown, ["--output_dir", str(tmp_path)], job))
    assert found[0] != found[1] != found[2] and found[2] == bash(shown, ["--output_dir", str(tmp_path)], job)


def bash(text: str, arguments: list[str], given: dict[str, str]) -> list[str]:
    """Lines that a script prints."""
    line = ["bash", "-s", "--", *arguments]
    run = subprocess.run(line, input=text, env=os.environ | given, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()
