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
    ["distil", "errors", "launcher", "markdown", "shares"],
    ["fields", "folder", "hosts", "hub", "identity", "schedule", "stopping"],
    ["exhibit", "tables"],
    ["config"],
    ["placement", "kernels", "health", "machine", "remote", "rundir"],
    ["options", "data"],
    ["tasks"],
    ["models", "variants"],
    ["evaluation", "engine", "monitor", "export", "prepare"],
    ["checkpoint", "guard", "made", "workload"],
    ["job", "stepping"],
    ["trainer"],
    ["results", "doctor", "summary", "distillation", "training"],
    ["variation"],
    ["pretrain", "finetuning", "planning"],
    ["members", "report"],
    ["provenance"],
    ["ablation"],
    ["commands"],
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


@cache
def benchmarks() -> dict[str, ast.Module]:
    """The measurements, which are no part of the architecture, by their dotted names."""
    return {f"benchmarks.{path.stem}": ast.parse(path.read_text()) for path in (ROOT / "benchmarks").rglob("*.py")}


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
    assert own_imports("distil.placement") == {"distil.errors", "distil.tables"}
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


@pytest.mark.parametrize(
    "name", ["errors", "config", "placement", "options", "schedule", "folder", "hosts", "remote", "variants"]
)
def test_what_refuses_early_needs_the_standard_library_alone(name):
    assert outside(f"distil.{name}") <= sys.stdlib_module_names


COMMANDS = (
    "launch.evaluate",
    "distil.commands.guess",
    "distil.commands.models",
    "distil.commands.speed",
    "distil.commands.suite",
)


def test_programs_load_heavy_libraries_late():
    programs = ("pretrain", "binarize", "doctor", "run", "ablate", "report", "finetune", "plan")
    for name in (*(f"launch.{program}" for program in programs), *COMMANDS):
        top = {
            i for node in sources()[name].body for i in imported(node) if isinstance(node, ast.Import | ast.ImportFrom)
        }
        ours = {i for i in top if i in sources()} - {"distil"}
        light = {"config", "errors", "hosts", "options", "placement", "remote", "stopping", "variants"}
        light |= {"commands", "finetuning", "finetuning.options", "finetuning.suite_options", "folder"}
        light |= {"planning", "planning.options"}
        light |= {command.removeprefix("distil.") for command in COMMANDS}
        assert ours <= {f"distil.{module}" for module in light}, name
        assert {i.split(".")[0] for i in top} <= {"distil", *sys.stdlib_module_names}, name


# --- nothing that runs what it reads -------------------------------------------------------------------------------

PICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
RUNNERS = {"eval", "exec", "compile", "__import__"}
DOTTED = {
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell",
    "torch.load", "torch.jit.load", "torch.hub.load", "torch.serialization.load", "pandas.read_pickle",
    "numpy.lib.format.read_array",
}  # fmt: skip
CUSTOMARY = {"np": "numpy", "pd": "pandas"}
SHELLS = {"sh", "bash", "dash", "zsh"}
# These hold ours against the way of the public training code, which pickles; what they load they wrote a moment ago.
AGAINST_PICKLES = {"benchmarks.data_open", "benchmarks.data_text"}


def dangers(tree: ast.AST) -> list[str]:
    """Everything in a tree that could run code out of data, each as a short text."""
    found = [f"import {i}" for i in imported(tree) if i.split(".")[0] in PICKLERS or i in DOTTED]
    names = aliases(tree)
    safe = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call) and loads_weights_only(n, names)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and id(node) not in safe:
            name = dotted(node, names)
            found += [name] if name in DOTTED or name.split(".")[0] in PICKLERS else []
        if isinstance(node, ast.Call):
            name = dotted(node.func, names)
            found += [name] if name in RUNNERS else []
            for keyword in node.keywords:
                off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                unsafe = keyword.arg in ("shell", "allow_pickle", "trust_remote_code")
                unsafe |= keyword.arg is None and (name == "numpy.load" or name.startswith("subprocess."))
                found += [f"{name}({keyword.arg}=...)"] if unsafe and not off else []
        found += shells(node)
    return found


def aliases(tree: ast.AST) -> dict[str, str]:
    """{name in the module: what it stands for, by its full dotted name}."""
    names = dict(CUSTOMARY)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def dotted(node: ast.AST, names: dict[str, str]) -> str:
    """An expression's text, with its first name as it was imported."""
    first, dot, rest = ast.unparse(node).partition(".")
    return f"{names.get(first, first)}{dot}{rest}".removeprefix("builtins.").removeprefix("__builtins__.")


def loads_weights_only(node: ast.Call, names: dict[str, str]) -> bool:
    """Whether it is torch.load told, in so many words, to take tensors alone."""
    stated = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
    return dotted(node.func, names) == "torch.load" and stated.get("weights_only") is True


def shells(node: ast.AST) -> list[str]:
    """A command line in which a shell is handed a text to run."""
    parts = node.elts if isinstance(node, ast.List | ast.Tuple) else node.args if isinstance(node, ast.Call) else []
    words = [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
    shell = any(word.rpartition("/")[2] in SHELLS for word in words)
    return [f"a shell: {words}"] if shell and any(re.fullmatch("-[a-z]*c", word) for word in words) else []


@pytest.mark.parametrize(
    "bad",
    [
        "import pickle", "from pickle import loads", "import dill as d", "eval('1')", "def f():\n    exec(x)",
        "torch.load(path)", "load = torch.load", "from torch import load", "os.system('ls')", "__import__('os')",
        "subprocess.run('ls', shell=True)", "subprocess.run('ls', shell=flag)", "np.load(p, allow_pickle=True)",
        "AutoModel.from_pretrained(n, trust_remote_code=True)", "import torch as t\nt.load(p)", "torch.jit.load(p)",
        "torch.hub.load(p)", "torch.serialization.load(p)", "from torch import jit\njit.load(p)",
        "import os as o\no.system(c)", "from os import popen as p\np(c)", "builtins.eval(c)",
        "import builtins as b\nb.exec(c)",
        "subprocess.getoutput(c)", "from subprocess import getstatusoutput", "subprocess.run(['sh', '-c', c])",
        "subprocess.run(('/bin/bash', '-lc', c))", "os.execlp('bash', 'bash', '-c', c)", "subprocess.run(c, **how)",
        "asyncio.create_subprocess_shell(c)", "pd.read_pickle(p)", "import _pickle", "np.load(p, **how)",
        "torch.load(p, weights_only=False)", "torch.load(p, weights_only=flag)", "torch.load(p, **how)",
        "load = torch.load\ntorch.load(p, weights_only=True)",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(bad):
    assert dangers(ast.parse(bad))


def test_batch_scripts_evaluate_nothing():
    for path in (ROOT / "slurm").glob("*.sh"):
        words = re.findall(
            r"(?<![\w-])(eval\b|bash -c|sh -c|source <\(|`)", re.sub(r"(?m)(^|\s)#.*", "", path.read_text())
        )
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
    good += "\ntorch.load(p, weights_only=True)\nsubprocess.run(['sh', 'script', c])\nwc = ['-c']\nloads = json.load"
    assert dangers(ast.parse(good)) == []


@pytest.mark.parametrize("name", sorted(sources() | benchmarks()))
def test_nothing_runs_code_out_of_data(name):
    found = dangers((sources() | benchmarks())[name])
    if name in AGAINST_PICKLES:
        assert found
        found = [danger for danger in found if "pickle" not in danger]
    assert found == []


@pytest.mark.parametrize("name", sorted(sources()))
def test_models_are_safetensors_and_run_no_code_of_theirs(name):
    for node in ast.walk(sources()[name]):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("model_class.from_pretrained"):
            stated = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            assert stated.get("use_safetensors") is True and stated.get("trust_remote_code") is False
