"""What this machine has and can run: processors, compilers, the loss, DeepSpeed's ops."""

from __future__ import annotations

import platform
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator

import torch

from distil.doctor.finding import FAIL, OK, WARN, Finding
from distil.engine import device as devices
from distil.engine.device import DTYPES
from distil.errors import UserError, one_line
from distil.kernels import Head, build, chunks, nvrtc, paths, triple_loss
from distil.kernels.paths import using

# Rows, vocabulary and width of the loss that is tried: small, odd, and more than a vector or a block of threads long.
ROWS, VOCABULARY, WIDTH = 33, 8191, 64


def examine(build_ops: bool = False) -> Iterator[Finding]:
    """All findings, in order; with ``build_ops`` DeepSpeed's extensions are really built, which takes minutes."""
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    yield Finding(
        OK, "torch", f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}, Python {platform.python_version()}"
    )
    yield from _devices()
    yield _compiler()
    yield _gpu_compiler()
    for where in dict.fromkeys((torch.device("cpu"), device)):
        yield _loss(where)
    for name, problem in devices.op_problems(build_ops).items():
        built = "builds" if build_ops else "can be built"
        if problem:
            yield Finding(WARN, name, f"DeepSpeed's op does not build: {problem}", "torch's optimiser serves instead")
        else:
            yield Finding(OK, name, f"DeepSpeed's op {built}")


def _devices() -> Iterator[Finding]:
    precisions = ", ".join(devices.precisions_of(torch.device("cpu")))
    threads = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    yield Finding(OK, "cpu", f"{threads}, computes in {precisions}")
    if torch.version.cuda is None:
        yield Finding(OK, "gpu", "none: this torch is built without CUDA")
    elif not torch.cuda.is_available():
        yield Finding(WARN, "gpu", "none that this torch can use", "nvidia-smi shows whether the driver sees one")
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device = torch.device("cuda", index)
        memory = torch.cuda.get_device_properties(device).total_memory / 2**30
        precisions = ", ".join(devices.precisions_of(device))
        what = f"{torch.cuda.get_device_name(device)}, {build.arch_of(device)}, {memory:.0f} GiB, {precisions}"
        yield _tried(f"gpu {index}", lambda device=device: devices.check_kernels(device), what)


def _tried(name: str, work: Callable[[], object], found: str) -> Finding:
    try:
        work()
    except UserError as error:
        return Finding(FAIL, name, one_line(error))
    return Finding(OK, name, found)


def _compiler() -> Finding:
    try:
        found = build.compiler()
    except UserError as error:
        return Finding(FAIL, "C++ compiler", one_line(error))
    if found is None:
        return Finding(WARN, "C++ compiler", "none: the CPU's loss is slower", "apt-get install g++")
    version = subprocess.run([*found, "--version"], capture_output=True, text=True).stdout.splitlines()
    return Finding(OK, "C++ compiler", f"{shlex.join(found)}: {version[0] if version else 'silent about its version'}")


def _gpu_compiler() -> Finding:
    try:
        return Finding(OK, "GPU compiler", f"NVRTC {nvrtc.load().version}")
    except OSError as error:
        if torch.version.cuda is None:
            return Finding(OK, "GPU compiler", "none, and no CUDA that would need it")
        return Finding(FAIL, "GPU compiler", f"no NVRTC: {one_line(error)}", "install torch's CUDA build anew")


# What a path may be away from the definition: in fp32 some hundred roundings of sums over 8,191 ids, in 16 bits a few
# of the gradients themselves.
ALLOWED = {"fp32": 1e-5, "fp16": 2**-8, "bf16": 2**-5}


def _loss(device: torch.device) -> Finding:
    name = f"loss on {device.type}"
    began = time.perf_counter()
    try:
        path = paths.path_for(device)
        seconds = time.perf_counter() - began
        apart = {p: _distance_from_definition(device, DTYPES[p]) for p in devices.precisions_of(device)}
    except (UserError, RuntimeError) as error:
        return Finding(FAIL, name, one_line(error))
    chunk = "all logits at once"
    if path.kernels is not None:
        rows = chunks.sizes(10**6, 30_522, path.kernels.bytes_per_logit(torch.float16), device).chunk
        chunk = f"chunks of {path.chunk_rows or rows:,} rows at 30,522 ids in 16 bits"
    distances = ", ".join(f"{value:.0e} in {precision}" for precision, value in apart.items())
    found = f"{path.name} ({path.why}), {chunk}, ready in {seconds:.1f} s; from the definition {distances}"
    if any(not value <= ALLOWED[precision] for precision, value in apart.items()):
        return Finding(FAIL, name, found, "these kernels are wrong here: set DISTIL_LOSS=reference, and report it")
    if path.name != "kernel":
        return Finding(WARN, name, found, "compiled kernels are several times faster")
    return Finding(OK, name, found)


def _distance_from_definition(device: torch.device, dtype: torch.dtype) -> float:
    """Largest relative difference of the loss and its gradients between the path in use and the definition."""
    draw = torch.Generator().manual_seed(0)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw).to(device, dtype)

    starts, teacher = [tensor(ROWS, WIDTH), tensor(VOCABULARY, WIDTH), tensor(VOCABULARY)], tensor(ROWS, WIDTH)
    teacher_head = Head(torch.nn.Identity(), tensor(VOCABULARY, WIDTH), tensor(VOCABULARY))
    labels = torch.randint(VOCABULARY, (ROWS,), generator=draw).to(device)

    def outcome() -> list[torch.Tensor]:
        hidden, weight, bias = leaves = [start.clone().requires_grad_() for start in starts]
        total = triple_loss(
            hidden, Head(torch.nn.Identity(), weight, bias), teacher, teacher_head, labels, attended_count=ROWS,
            masked_count=ROWS, temperature=2.0, alpha_ce=5.0, alpha_mlm=2.0, alpha_cos=1.0,
        ).total  # fmt: skip
        return [total.detach(), *torch.autograd.grad(total, leaves)]

    found = outcome()
    with using("reference"):
        wanted = outcome()
    return max(float((f - w).abs().max() / w.abs().max()) for f, w in zip(found, wanted, strict=True))
