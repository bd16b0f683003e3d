"""The triple loss with its vocabulary products, forward and backward: ours beside eager, rivals and bare products.

    python benchmarks/loss.py                                                          the device that is there
    python benchmarks/loss.py --rivals --out benchmarks/results/loss-gpu.md            with what others offer, kept

Times are medians of variants that take turns in one process. Eager is the loss as the public training code writes it:
all logits, masked_select, statistics in fp32. "autocast" takes fp32 tensors, as does fp32; the others take 16 bits, as
from DeepSpeed. Products are the four matrix products alone, each of all rows at once, into memory that is there. Peaks
are what a step holds beyond its inputs and the gradients that it returns; the last column counts those too.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from measure import Step, machine, peak_bytes, seconds
from torch import Tensor

from distil.kernels import Head, paths, triple_loss
from distil.kernels.rows import Slopes

T, ALPHA_CE, ALPHA_MLM, ALPHA_COS, MASKED = 2.0, 5.0, 2.0, 1.0, 0.15
PASS_ROWS = 2048
Loss = Callable[["Setting", list[Tensor]], Tensor]


class Setting:
    """Hidden states, heads and labels of one micro-batch of ``rows`` tokens, for student and teacher of one width."""

    def __init__(self, rows: int, vocabulary: int, hidden: int, device: torch.device) -> None:
        torch.manual_seed(0)
        self.rows, self.device = rows, device

        def tensor(*shape: int, by: float = 1.0) -> Tensor:
            return torch.randn(*shape, device=device) * by

        self.student = [tensor(rows, hidden), tensor(vocabulary, hidden, by=0.05), tensor(vocabulary, by=0.1)]
        self.teacher = [tensor(rows, hidden), tensor(vocabulary, hidden, by=0.05), tensor(vocabulary, by=0.1)]
        self.labels = torch.full((rows,), -100, device=device)
        self.masked = torch.randperm(rows, device=device)[: round(MASKED * rows)].sort().values
        self.labels[self.masked] = torch.randint(vocabulary, (len(self.masked),), device=device)

    def tensors(self, dtype: torch.dtype) -> list[Tensor]:
        """Hidden rows, weight and bias of the student as leaves, then those of the teacher, in a type."""
        leaves = [tensor.to(dtype, copy=True).requires_grad_() for tensor in self.student]
        return leaves + [tensor.to(dtype) for tensor in self.teacher]


def ours(s: Setting, tensors: list[Tensor]) -> Tensor:
    """The loss of this package."""
    hidden, weight, bias, teacher_hidden, teacher_weight, teacher_bias = tensors
    heads = Head(torch.nn.Identity(), weight, bias), Head(torch.nn.Identity(), teacher_weight, teacher_bias)
    return triple_loss(
        hidden, heads[0], teacher_hidden, heads[1], s.labels, None, s.masked, attended_count=s.rows,
        masked_count=len(s.masked), temperature=T, alpha_ce=ALPHA_CE, alpha_mlm=ALPHA_MLM, alpha_cos=ALPHA_COS,
    ).total  # fmt: skip


def eager(s: Setting, tensors: list[Tensor], select: bool = True) -> Tensor:
    """The loss in the way of the public training code, whose masks select rows even where all are wanted."""
    hidden, weight, bias, teacher_hidden, teacher_weight, teacher_bias = tensors
    student = F.linear(hidden, weight, bias)
    with torch.no_grad():
        teacher = F.linear(teacher_hidden, teacher_weight, teacher_bias)
    attended = torch.ones(s.rows, 1, dtype=torch.bool, device=s.device)

    def chosen(tensor: Tensor) -> Tensor:
        return torch.masked_select(tensor, attended.expand_as(tensor)).view(-1, tensor.size(-1)) if select else tensor

    log_q = F.log_softmax(chosen(student) / T, dim=-1, dtype=torch.float32)
    p = F.softmax(chosen(teacher) / T, dim=-1, dtype=torch.float32)
    loss = ALPHA_CE * T**2 * F.kl_div(log_q, p, reduction="batchmean")
    loss = loss + ALPHA_MLM * F.cross_entropy(student.float(), s.labels, ignore_index=-100)
    mine, theirs = chosen(hidden).float(), chosen(teacher_hidden).float()
    return loss + ALPHA_COS * F.cosine_embedding_loss(mine, theirs, mine.new_ones(len(mine)))


def compiled() -> Loss:
    """Eager's best case for torch.compile: nothing selected, so that the graph is whole."""
    torch._dynamo.reset()
    return torch.compile(lambda s, tensors: eager(s, tensors, select=False), dynamic=False)


def liger() -> Loss | None:
    """Liger's two fused losses, which together come nearest; without bias, T^2 and cosine, which it has not."""
    try:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss, LigerFusedLinearJSD
    except ImportError:
        return None
    divergence, cross_entropy = LigerFusedLinearJSD(jsd_beta=0.0, temperature=T), LigerFusedLinearCrossEntropyLoss()

    def loss(s: Setting, tensors: list[Tensor]) -> Tensor:
        hidden, weight, _, teacher_hidden, teacher_weight, _ = tensors
        soft = divergence(hidden, weight, teacher_hidden, teacher_weight, None)
        return ALPHA_CE * soft + ALPHA_MLM * cross_entropy(weight, hidden[s.masked], s.labels[s.masked])

    return loss


def variants(s: Setting, half: torch.dtype, rivals: bool) -> dict[str, Step]:
    """One forward and backward pass of each, by name."""
    found: dict[str, Step] = {}
    short = {torch.bfloat16: "bf16", torch.float16: "fp16"}[half]
    codes: dict[str, Loss] = {"eager": eager}
    if rivals:
        codes["compiled eager"] = compiled()
    codes["ours"] = ours
    for which, code in codes.items():
        found[f"{which} fp32"] = _loss(s, code, torch.float32, half, False)
        found[f"{which} {short} autocast"] = _loss(s, code, torch.float32, half, True)
        found[f"{which} {short}"] = _loss(s, code, half, half, False)
    if rivals and s.device.type == "cuda" and (fused := liger()) is not None:
        found[f"Liger {short}"] = _loss(s, fused, half, half, False)
    found["products fp32"] = _products(s, torch.float32)
    found[f"products {short}"] = _products(s, half)
    return found


def _loss(s: Setting, code: Loss, dtype: torch.dtype, half: torch.dtype, autocast: bool) -> Step:
    tensors = s.tensors(dtype)

    def step() -> None:
        for leaf in tensors[:3]:
            leaf.grad = None
        with torch.autocast(s.device.type, half, enabled=autocast):
            total = code(s, tensors)
        total.backward()

    return step


def _products(s: Setting, dtype: torch.dtype) -> Step:
    hidden, weight, bias, teacher_hidden, teacher_weight, teacher_bias = (t.detach() for t in s.tensors(dtype))
    logits = torch.randn(s.rows, len(weight), device=s.device).to(dtype)
    of_hidden, of_weight = torch.empty_like(hidden), torch.empty_like(weight)

    def step() -> None:
        torch.addmm(bias, hidden, weight.t(), out=logits)
        torch.addmm(teacher_bias, teacher_hidden, teacher_weight.t(), out=logits)
        torch.mm(logits, weight, out=of_hidden)
        torch.mm(logits.t(), hidden, out=of_weight)

    return step


def table(s: Setting, times: dict[str, float], peaks: dict[str, int]) -> list[str]:
    """Markdown: each variant against the eager ones and against the bare products of its own precision."""
    autocast = next(name for name in times if name.startswith("eager") and name.endswith("autocast"))
    lines = [
        f"| {s.rows:,} rows | ms | x faster than eager fp32 | than {autocast} | / products | peak MiB | of eager's "
        "| with gradients, of eager's |",
        "|---" * 8 + "|",
    ]
    for name, taken in times.items():
        precision = name.removesuffix(" autocast").split()[-1]
        alike = f"eager {precision}{' autocast' if name.endswith('autocast') else ''}"
        gradients = sum(t.numel() for t in s.student) * (2 if name.endswith("16") else 4)
        memory = "| | |"
        if not name.startswith("products"):  # which have their memory already
            mine, theirs = peaks[name], peaks[alike]
            memory = f"{mine / 2**20:,.0f} | 1/{theirs / max(mine, 1):.1f} "
            memory += f"| 1/{(theirs + gradients) / (mine + gradients):.1f} |"
        lines.append(
            f"| {name} | {taken * 1e3:.1f} | {times['eager fp32'] / taken:.2f} | {times[autocast] / taken:.2f} "
            f"| {taken / times[f'products {precision}']:.2f} | {memory}"
        )
    return [*lines, ""]


def passes(vocabulary: int, half: torch.dtype, device: torch.device, repeats: int) -> list[str]:
    """The two passes over a chunk's logits alone, as bytes read once and written once, beside a copy of as many."""
    path = paths.path_for(device)
    if path.kernels is None:
        return []
    logits, teacher = (torch.randn(PASS_ROWS, vocabulary, device=device).to(half) for _ in range(2))
    student, copy = logits.clone(), torch.empty_like(logits)
    labels = torch.full((PASS_ROWS,), -100, device=device)
    labels[:: round(1 / MASKED)] = 7
    slopes, bias = Slopes(T, 1e-3, 1e-3, 0.0, 0.0), torch.zeros(vocabulary, device=device)

    def pass_over(bias_gradient: Tensor | None) -> None:
        path.kernels.loss_rows_(student, teacher, labels, None, slopes, bias_gradient, True)

    steps: dict[str, Step] = {
        "copy": lambda: copy.copy_(logits),
        "fill": lambda: student.copy_(logits),  # the gradient would be no logits for the next turn
        "passes": lambda: pass_over(None),
        "fill again": lambda: student.copy_(logits),
        "passes with the bias's gradient": lambda: pass_over(bias),
    }
    times = seconds(steps, repeats, device)
    copied = 2 * logits.nbytes / times["copy"] / 1e9
    lines = []
    for name in ("passes", "passes with the bias's gradient"):
        passed = 3 * logits.nbytes / times[name] / 1e9
        lines.append(f"{name} over {PASS_ROWS:,} rows: {passed:,.0f} GB/s, {100 * passed / copied:.0f} % of a copy's")
    told = "; ".join(lines)
    return [f"Counting student and teacher read once and the gradient written once, {told} {copied:,.0f} GB/s.", ""]


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1024, 4096])
    parser.add_argument("--vocabulary", type=int, default=30_522)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--rivals", action="store_true", help="torch.compile of the eager loss, and Liger on a GPU")
    parser.add_argument("--out", type=Path, help="write the tables to this file as well")
    options = parser.parse_args()
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    has_bf16 = device.type == "cpu" or torch.cuda.get_device_capability() >= (8, 0)
    half = torch.bfloat16 if has_bf16 else torch.float16
    path = paths.path_for(device)
    lines = [
        f"{date.today()}; {machine(device)}; V = {options.vocabulary:,}, H = {options.hidden}; "
        f"path: {path.name} ({path.why}); medians of {options.repeats} turns.",
        "",
    ]
    for rows in options.rows:
        setting = Setting(rows, options.vocabulary, options.hidden, device)
        steps = variants(setting, half, options.rivals)
        times = seconds(steps, options.repeats, device)
        lines += table(setting, times, {name: peak_bytes(step, device) for name, step in steps.items()})
        del setting, steps
    lines += passes(options.vocabulary, half, device, options.repeats)
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(["# The triple loss, measured", "", *lines]))


if __name__ == "__main__":
    main()
