"""The folder of a run: whose it is, whether it is done, and which one is free."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field, replace

import pytest

from distil.errors import ConfigError, DataError
from distil.results import Results
from distil.rundir import RESULTS, RUN, claim, finished, free_folder, held

IDENTITY = {
    "recipe": "r",
    "mathematics": {"loss": {"alpha_ce": 5.0, "temperature": 2.0}, "data": {"store": "a/b", "max_length": 128}},
    "store": "0123",
    "tokenizer": "4567",
}


@dataclass
class Job:
    """As much of a job as its folder needs."""

    values: dict = field(default_factory=lambda: copy.deepcopy(IDENTITY))
    stop_step: int = 10

    @property
    def name(self) -> str:
        return self.values["recipe"]

    def identity(self) -> dict:
        return self.values


def other(**changes: object) -> Job:
    """A job whose identity differs in dotted fields, given with __ for the dot."""
    job = Job()
    for name, value in changes.items():
        *path, last = name.split("__")
        table = job.values
        for part in path:
            table = table[part]
        table[last] = value
    return job


def done(folder, step: int) -> None:
    Results(step, 0, ()).write(folder)


# --- claim ---------------------------------------------------------------------------------------------------------


def test_a_claim_makes_the_folder(tmp_path):
    claim(tmp_path / "a" / "b", Job())
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == [RUN]
    assert json.loads((tmp_path / "a" / "b" / RUN).read_text()) == IDENTITY


def test_an_empty_folder_can_be_claimed(tmp_path):
    claim(tmp_path, Job())
    assert (tmp_path / RUN).is_file()


def test_the_same_job_claims_again(tmp_path):
    claim(tmp_path, Job())
    (tmp_path / "checkpoints").mkdir()
    before = (tmp_path / RUN).read_bytes()
    claim(tmp_path, Job(stop_step=99))  # how far to train is no part of whose run it is
    assert (tmp_path / RUN).read_bytes() == before


def test_where_the_store_lies_is_no_part_of_the_run(tmp_path):
    claim(tmp_path, Job())
    claim(tmp_path, other(mathematics__data__store="elsewhere"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mathematics__loss__temperature": 3.0}, "loss.temperature: 2.0 there, 3.0 here"),
        ({"mathematics__data__max_length": 64}, "data.max_length: 128 there, 64 here"),
        ({"store": "9999"}, "store: 0123 there, 9999 here"),
        ({"recipe": "q"}, "recipe: r there, q here"),
        ({"mathematics__loss__alpha_new": 1.0}, "loss.alpha_new: None there, 1.0 here"),
    ],
)
def test_another_run_is_refused_with_the_difference(tmp_path, changes, said):
    claim(tmp_path, Job())
    with pytest.raises(ConfigError) as caught:
        claim(tmp_path, other(**changes))
    assert said in str(caught.value) and str(tmp_path) in str(caught.value)
    assert "alpha_ce" not in str(caught.value)  # what is the same is not listed
    assert json.loads((tmp_path / RUN).read_text()) == IDENTITY


def test_a_field_that_is_gone_is_a_difference(tmp_path):
    claim(tmp_path, Job())
    job = Job()
    del job.values["mathematics"]["loss"]["alpha_ce"]
    with pytest.raises(ConfigError, match=r"loss\.alpha_ce: 5\.0 there, None here"):
        claim(tmp_path, job)


@pytest.mark.parametrize(("number", "more"), [(4, ""), (5, "; and 1 more"), (7, "; and 3 more")])
def test_many_differences_are_counted(tmp_path, number, more):
    claim(tmp_path, Job())
    with pytest.raises(ConfigError) as caught:
        claim(tmp_path, other(**{f"mathematics__loss__new{i}": i for i in range(number)}))
    message = str(caught.value)
    assert message.count("None there") == 4
    assert (more in message) if more else ("more" not in message)


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match="no run of ours"):
        claim(tmp_path, Job())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="no run of ours"):
        claim(tmp_path / "file", Job())


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        claim(tmp_path / "file" / "run", Job())


def test_a_damaged_claim_is_refused(tmp_path):
    (tmp_path / RUN).write_text('{"recipe": ')
    with pytest.raises(DataError, match=RUN):
        claim(tmp_path, Job())


# --- finished ------------------------------------------------------------------------------------------------------


def test_a_run_without_results_is_not_finished(tmp_path):
    assert not finished(tmp_path, Job())


@pytest.mark.parametrize(("step", "is_done"), [(9, False), (10, True), (11, True)])
def test_a_run_is_finished_at_the_last_step(tmp_path, step, is_done):
    done(tmp_path, step)
    assert finished(tmp_path, Job()) == is_done


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"step": "10"}', '{"step": true}'])
def test_damaged_results_are_not_taken_for_none(tmp_path, text):
    (tmp_path / RESULTS).write_text(text)
    with pytest.raises(DataError):
        finished(tmp_path, Job())


# --- free_folder ---------------------------------------------------------------------------------------------------


def test_the_first_name_is_the_recipes(tmp_path):
    assert free_folder(tmp_path / "runs", Job()) == tmp_path / "runs" / "r"
    assert not (tmp_path / "runs").exists()  # it only looks


def test_an_unfinished_run_goes_on(tmp_path):
    claim(tmp_path / "r", Job())
    assert free_folder(tmp_path, Job()) == tmp_path / "r"
    done(tmp_path / "r", 10)
    assert free_folder(tmp_path, replace(Job(), stop_step=20)) == tmp_path / "r"


def test_a_finished_run_stays(tmp_path):
    claim(tmp_path / "r", Job())
    done(tmp_path / "r", 10)
    assert free_folder(tmp_path, Job()) == tmp_path / "r-2"
    claim(tmp_path / "r-2", Job())
    assert free_folder(tmp_path, Job()) == tmp_path / "r-2"
    done(tmp_path / "r-2", 10)
    assert free_folder(tmp_path, Job()) == tmp_path / "r-3"


def test_what_belongs_to_others_is_passed_over(tmp_path):
    claim(tmp_path / "r", other(mathematics__loss__temperature=3.0))
    (tmp_path / "r-2").mkdir()
    (tmp_path / "r-3").write_text("a file")
    assert free_folder(tmp_path, Job()) == tmp_path / "r-4"


# --- one job at a time ---------------------------------------------------------------------------------------------


def test_a_folder_is_held_by_one_process_and_free_when_it_goes(tmp_path):
    with held(tmp_path / "r"):
        with (
            pytest.raises(ConfigError, match=rf"is in use by process {os.getpid()} on .* since 20"),
            held(tmp_path / "r"),
        ):
            pass
        assert free_folder(tmp_path, Job()) == tmp_path / "r", "nothing but a lock is in it: nobody's run"
    with held(tmp_path / "r"):
        claim(tmp_path / "r", Job())


def test_a_lock_dies_with_its_process(tmp_path):
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom distil.rundir import held\n"
        "with held(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, tmp_path / "r"], check=False).returncode == -signal.SIGKILL
    with held(tmp_path / "r"):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"), held(tmp_path / "file" / "run"):
        pass
