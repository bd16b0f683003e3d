"""Every family through the real launcher on 2 ranks: trained, resumed to the bit, exported, loaded by transformers."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers
from families import STUDENTS, make_job, of_model
from harness import CLOCKED, ROOT, command, environment, scalars, tags

from distil.models.families import FAMILIES, family_of

pytestmark = pytest.mark.faults  # each is stopped and goes on
every_case = pytest.mark.parametrize("case", STUDENTS)


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All cases trained, in one launch."""
    work = tmp_path_factory.mktemp("families")
    for case in STUDENTS:
        make_job(work / case, case)
    line = command(2, work, *STUDENTS, program="tests/end_to_end/family_stage.py")
    result = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, f"{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
    return work


def weights(student: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(student / "model.safetensors")


def checkpointed(run: Path) -> dict[str, torch.Tensor]:
    """The fp32 weights of the newest checkpoint, by parameter name, put together from all ranks' slices."""
    newest = sorted((run / "checkpoints").glob("step-*"))[-1]
    found: dict[str, dict[int, torch.Tensor]] = {}
    for path in newest.glob("*.safetensors"):
        for key, tensor in safetensors.torch.load_file(path).items():
            kind, name, start = key.split("|")
            if kind == "fp32":
                found.setdefault(name, {})[int(start)] = tensor
    return {name: torch.cat([parts[start] for start in sorted(parts)]) for name, parts in found.items()}


@every_case
def test_a_resumed_run_is_the_run_itself(jobs, case):
    whole, parts = jobs / case / "whole", jobs / case / "parts"
    assert tags(whole) == tags(parts)
    for tag in tags(whole) - CLOCKED:
        one, other = scalars(whole, tag), scalars(parts, tag)
        # Where it stopped it evaluated once more than a run that goes on.
        assert one.keys() == other.keys() - ({15} if tag.startswith("heldout/") else set()) and max(one) >= 18, tag
        assert all(one[step] == other[step] for step in one), tag
    one, other = weights(whole / "student"), weights(parts / "student")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@every_case
def test_it_learns(jobs, case):
    name = "relations" if case == "minilm" else FAMILIES[of_model(case)].objective
    run = jobs / case / "whole"
    losses, perplexity = scalars(run, f"loss/{name}"), scalars(run, "heldout/perplexity")
    assert sum(losses[step] for step in range(26, 31)) < sum(losses[step] for step in range(1, 6))
    assert perplexity[30] < perplexity[0] or case == "minilm"  # which never hears of words


@every_case
def test_what_was_evaluated_is_what_is_exported(jobs, case):
    # The same weights in the same precision on the same batches, rotary frequencies included: only the sums over
    # batches, in double, are taken in another order.
    run = jobs / case / "whole"
    after = json.loads((run / "results.json").read_text())["rows"][-1]
    assert scalars(run, "heldout/mlm_accuracy" if of_model(case) != "gpt2" else "heldout/clm_accuracy")[30] == (
        pytest.approx(after["accuracy"], rel=1e-6)  # kept in fp32 by TensorBoard
    )
    assert scalars(run, "heldout/perplexity")[30] == pytest.approx(after["perplexity"], rel=1e-6)


@every_case
def test_transformers_loads_the_student_with_the_trained_logits(jobs, case):
    run = jobs / case / "whole"
    causal = FAMILIES[of_model(case)].causal
    auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForMaskedLM
    loaded, info = auto.from_pretrained(run / "student", output_loading_info=True)
    assert not any(info.values())
    family = family_of(loaded.config)
    plain = family.model_class(transformers.AutoConfig.from_pretrained(run / "student"))
    trained = {n.removeprefix("student."): t for n, t in checkpointed(run).items() if n.startswith("student.")}
    with torch.no_grad():
        for name, tensor in trained.items():
            plain.get_parameter(name).copy_(tensor.view(plain.get_parameter(name).shape))
    # A tied parameter has one name only in a checkpoint; everything else must be there.
    alike = {id(plain.get_parameter(name)) for name in trained}
    assert alike == {id(parameter) for parameter in plain.parameters()}
    tokenizer = transformers.AutoTokenizer.from_pretrained(run / "student")
    ids = tokenizer("bab cob dub", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(loaded.eval()(ids).logits, plain.eval()(ids).logits)
    assert loaded.config.vocab_size == len(tokenizer)
    card = (run / "student" / "README.md").read_text()
    assert f"{auto.__name__}.from_pretrained" in card and ("text-generation" in card) is causal


@every_case
def test_the_table_has_teacher_and_both_students(jobs, case):
    results = json.loads((jobs / case / "whole" / "results.json").read_text())
    names = ["student before", "student after"] if case == "adapted" else ["teacher", "student before", "student after"]
    assert [row["name"] for row in results["rows"]] == names
    assert results["predicted"] > 100 and all(0 <= row["accuracy"] <= 1 for row in results["rows"])


def test_a_causal_run_has_tags_of_its_own(jobs):
    found = tags(jobs / "gpt2" / "whole")
    assert {"loss/clm", "loss_weighted/clm", "teacher/clm_loss", "heldout/clm_accuracy"} <= found
    assert not any("mlm" in tag for tag in found)
    table = (ROOT / "README.md").read_text().split("| further tag |")[1].split("\n\n")[0]
    promised = set(re.findall(r"^\| `(\S+)` \|", table, re.MULTILINE))
    assert promised <= found | tags(jobs / "narrow" / "whole") and "loss/relations" in promised
    predicted = scalars(jobs / "gpt2" / "whole", "data/predicted_fraction")
    assert all(0.9 < value < 1 for value in predicted.values())  # all but the last of each sequence


def test_every_term_has_its_curve_until_the_teacher_is_left(jobs):
    run = jobs / "narrow" / "whole"
    for name in ("ce", "cos", "mse", "hidden", "relations"):
        found = scalars(run, f"loss/{name}")
        assert sorted(found) == list(range(1, 19)) and all(value > 0 for value in found.values()), name  # 0.6 of 30
    assert sorted(scalars(run, "loss/mlm")) == list(range(1, 31))
    assert scalars(run, "loss/total")[30] == pytest.approx(2 * scalars(run, "loss/mlm")[30], rel=1e-6)


def test_the_projection_is_trained_and_not_exported(jobs):
    run = jobs / "narrow" / "whole"
    trained = checkpointed(run)["projection.weight"].view(32, 16)
    assert not torch.equal(trained, torch.eye(32, 16))
    assert not any("projection" in name for name in weights(run / "student"))
    printed = (jobs / "narrow" / "printed.txt").read_text()
    assert "initial weights the teacher's, cut to size, all of them" in printed
    assert "no teacher after step 18" in printed


def test_a_trimmed_students_vocabulary_is_its_own(jobs):
    student = transformers.AutoModelForMaskedLM.from_pretrained(jobs / "trimmed" / "whole" / "student")
    teacher = transformers.AutoModelForMaskedLM.from_pretrained(jobs / "trimmed" / "teacher")
    assert student.config.vocab_size < teacher.config.vocab_size
    assert student.get_output_embeddings().weight.shape[0] == student.config.vocab_size
