"""The architecture, read from the sources: arrows go down, one door to DeepSpeed, nothing that runs foreign code."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import distil

ROOT = Path(distil.__file__).parents[1]
# From bottom to top; a name is a module of distil, a package of it with all inside, or a program's folder.
LEVELS = [
    ["distil", "errors", "launcher", "shares"],
    ["fields", "folder", "hosts", "hub", "identity", "schedule", "stopping"],
    ["config"],
    ["placement", "kernels", "health", "remote"],
    ["options", "data"],
    ["models"],
    ["evaluation", "engine", "monitor", "export", "prepare"],
    ["checkpoint"],
    ["job"],
    ["results", "doctor"],
    ["rundir", "trainer"],
    ["pretrain"],
    ["launch", "slurm"],
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}


@cache
def sources() -> dict[str, ast.Module]:
    """Every module of the package and of the programs, by its dotted name."""
    found = {}
    for path in [path for folder in ("distil", "launch", "slurm") for path in (ROOT / folder).rglob("*.py")]:
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text())
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a tree imports anywhere, functions included; for `from a import b` both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import: write the full name"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(name: str) -> set[str]:
    """Modules of ours that a module imports; `from distil.x import name` is distil.x, not distil."""
    found = {i for i in imported(sources()[name]) if i in sources()}
    outside = {"distil.kernels"} if unit(name) != "kernels" else set()  # a package with names of its own
    return {i for i in found if not any(other.startswith(f"{i}.") for other in found) or i in outside}


def unit(module: str) -> str:
    """The unit of LEVELS that a module belongs to."""
    parts = module.split(".")
    return parts[1] if parts[0] == "distil" and len(parts) > 1 else parts[0]


def outside(name: str) -> set[str]:
    """Top-level names that a module imports from elsewhere."""
    return {i.split(".")[0] for i in imported(sources()[name])} - {"distil", "launch", "__future__"}


def test_the_sources_were_found():
    assert {"distil", "distil.config", "distil.kernels.reference", "distil.models.packed", "launch.pretrain"} <= set(
        sources()
    )
    assert own_imports("distil.placement") == {"distil.config", "distil.errors"}
    assert "distil.models.packed" in own_imports("distil.models.distiller")


def test_every_module_has_a_level():
    assert {unit(name) for name in sources()} == set(LEVEL)


@pytest.mark.parametrize("name", sorted(sources()))
def test_arrows_go_down_or_stay_within_a_package(name):
    for other in own_imports(name):
        below = LEVEL[unit(other)] < LEVEL[unit(name)]
        assert below or unit(other) == unit(name), f"{name} imports {other}"


def test_there_is_no_cycle():
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"cycle: {' -> '.join((*path, name))}"
        if name not in done:
            for other in own_imports(name) - {name}:
                visit(other, (*path, name))
            done.add(name)

    for name in sources():
        visit(name, ())
    assert done == set(sources())


def test_deepspeed_has_one_door():
    assert {name for name in sources() if "deepspeed" in outside(name)} == {
        "distil.engine.device", "distil.engine.ranks", "distil.engine.state", "distil.engine.wrapped"
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(n for n in sources() if unit(n) == "kernels"))
def test_kernels_need_torch_alone(name):
    assert outside(name) <= {"torch", "triton", *sys.stdlib_module_names}
    assert {unit(other) for other in own_imports(name)} <= {"kernels", "errors", "folder"}


@pytest.mark.parametrize("name", ["errors", "config", "placement", "options", "schedule", "folder", "hosts", "remote"])
def test_what_refuses_early_needs_the_standard_library_alone(name):
    assert outside(f"distil.{name}") <= sys.stdlib_module_names


def test_programs_load_heavy_libraries_late():
    for name in ("launch.pretrain", "launch.binarize", "launch.doctor", "launch.run"):
        top = {
            i for node in sources()[name].body for i in imported(node) if isinstance(node, ast.Import | ast.ImportFrom)
        }
        ours = {i for i in top if i in sources()} - {"distil"}
        light = {"config", "errors", "hosts", "options", "placement", "remote", "stopping"}
        assert ours <= {f"distil.{module}" for module in light}, name
        assert {i.split(".")[0] for i in top} <= {"distil", *sys.stdlib_module_names}, name


# --- nothing that runs what it reads -------------------------------------------------------------------------------

PICKLERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
RUNNERS = {"eval", "exec", "compile", "__import__"}
DOTTED = {"torch.load", "os.system", "os.popen", "pickle.load", "pickle.loads", "numpy.lib.format.read_array"}


def dangers(tree: ast.AST) -> list[str]:
    """Everything in a tree that could run code out of data, each as a short text."""
    found = [f"import {i}" for i in imported(tree) if i.split(".")[0] in PICKLERS]
    found += [f"import {i}" for i in imported(tree) if i in DOTTED]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in DOTTED:
            found.append(ast.unparse(node))
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            found += [name] if name in RUNNERS else []
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                unsafe = keyword.arg in ("shell", "allow_pickle", "trust_remote_code")
                found += [f"{name}({keyword.arg}=...)"] if unsafe and not off else []
    return found


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle", "from pickle import loads", "import dill as d", "eval('1')", "def f():\n    exec(x)",
        "torch.load(path)", "load = torch.load", "from torch import load", "os.system('ls')", "__import__('os')",
        "subprocess.run('ls', shell=True)", "subprocess.run('ls', shell=flag)", "np.load(p, allow_pickle=True)",
        "AutoModel.from_pretrained(n, trust_remote_code=True)",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(bad):
    assert dangers(ast.parse(bad))


def test_batch_scripts_evaluate_nothing():
    for path in (ROOT / "slurm").glob("*.sh"):
        words = re.findall(r"(?<![\w-])(eval|bash -c|sh -c|source <\(|`)", re.sub(r"#.*", "", path.read_text()))
        assert words == [], f"{path.name} runs text: {words}"


def test_tensorboard_stays_on_this_machine():
    """Whatever we print or document shows curves to localhost, which is TensorBoard's default, and to nobody else."""
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"]
    texts += [path for folder in ("distil", "launch", "slurm") for path in (ROOT / folder).rglob("*") if path.is_file()]
    mentions = 0
    for path in texts:
        if path.suffix != ".pyc":
            for line in path.read_text(errors="replace").splitlines():
                mentions += "tensorboard --logdir" in line
                assert not re.search(r"--bind_all|tensorboard .*--host", line), (path, line)
    assert mentions >= 2


def test_the_search_leaves_the_harmless_alone():
    good = "model.eval()\nre.compile('x')\nnp.load(p, allow_pickle=False)\nsubprocess.run(['ls'], shell=False)"
    assert dangers(ast.parse(good)) == []


@pytest.mark.parametrize("name", sorted(sources()))
def test_nothing_runs_code_out_of_data(name):
    assert dangers(sources()[name]) == []


@pytest.mark.parametrize("name", sorted(sources()))
def test_models_are_safetensors_and_run_no_code_of_theirs(name):
    for node in ast.walk(sources()[name]):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("model_class.from_pretrained"):
            stated = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            assert stated.get("use_safetensors") is True and stated.get("trust_remote_code") is False
