"""Settings of the triple loss for tests, and its definition once more: float64, one row at a time."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from distil.kernels import TERMS, Head, triple_loss
from distil.kernels.paths import using

H, G = 8, 5  # hidden widths of student and teacher, different unless a test compares hidden states


class Setting:
    """Random hidden states, heads and labels; every tensor of the student is an fp32 leaf."""

    def __init__(self, rows=6, vocab=7, masked=(1, 4), *, seed=0, same_width=False, size=1.0) -> None:
        draw = torch.Generator().manual_seed(seed)
        width = H if same_width else G

        def tensor(*shape: int, by: float = 1.0) -> torch.Tensor:
            return torch.randn(*shape, generator=draw) * by

        self.hidden = tensor(rows, H).requires_grad_()
        self.weight = tensor(vocab, H, by=size).requires_grad_()
        self.bias = tensor(vocab, by=size).requires_grad_()
        self.teacher_hidden = tensor(rows, width)
        self.teacher_weight, self.teacher_bias = tensor(vocab, width, by=size), tensor(vocab, by=size)
        self.labels = torch.full((rows,), -100)
        self.labels[list(masked)] = torch.randint(vocab, (len(masked),), generator=draw)
        self.next = torch.randint(vocab, (rows,), generator=draw)
        self.next[-1] = -100
        self.counts = {"attended_count": rows, "masked_count": len(masked), "next_count": rows - 1}
        self.seen: list[int] = []  # rows that passed the student's head, call by call
        self.teacher_seen: list[int] = []

    @property
    def leaves(self) -> tuple[torch.Tensor, ...]:
        return self.hidden, self.weight, self.bias

    def heads(self) -> tuple[Head, Head]:
        def student(hidden: torch.Tensor) -> torch.Tensor:
            self.seen.append(len(hidden))
            return torch.tanh(hidden)

        def teacher(hidden: torch.Tensor) -> torch.Tensor:
            self.teacher_seen.append(len(hidden))
            return torch.sin(hidden)

        return Head(student, self.weight, self.bias), Head(teacher, self.teacher_weight, self.teacher_bias)

    def loss(self, rows=slice(None), **options):
        student, teacher = self.heads()
        options = {"temperature": 2.0, **self.counts, **options}
        return triple_loss(
            self.hidden[rows], student, self.teacher_hidden[rows], teacher, self.labels[rows], self.next[rows],
            **options,
        )  # fmt: skip


def log_sum(x: torch.Tensor) -> torch.Tensor:
    top = x.max().detach()
    return top + torch.log(torch.exp(x - top).sum())


def row_kl(student: torch.Tensor, teacher: torch.Tensor, t: float) -> torch.Tensor:
    log_p, log_q = teacher / t - log_sum(teacher / t), student / t - log_sum(student / t)
    return t * t * (torch.exp(log_p) * (log_p - log_q)).sum()


def row_cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum() / (torch.sqrt((a * a).sum()) * torch.sqrt((b * b).sum()))


def defined(s: Setting, leaves, t=2.0, restrict=False) -> dict[str, torch.Tensor]:
    """Each unweighted term in float64, as a function of the given student leaves."""
    hidden, weight, bias = leaves
    teacher_hidden = s.teacher_hidden.double()
    zero = (hidden * 0).sum()
    terms = dict.fromkeys(TERMS, zero)
    for n in range(len(hidden)):
        student = weight @ torch.tanh(hidden[n]) + bias
        teacher = s.teacher_weight.double() @ torch.sin(teacher_hidden[n]) + s.teacher_bias.double()
        label, following = int(s.labels[n]), int(s.next[n])
        soft = s.counts["masked_count"] if restrict else s.counts["attended_count"]
        if not restrict or label != -100:
            terms["ce"] = terms["ce"] + row_kl(student, teacher, t) / soft
            terms["mse"] = terms["mse"] + ((student - teacher) ** 2).sum() / soft
        if label != -100:
            terms["mlm"] = terms["mlm"] + (log_sum(student) - student[label]) / s.counts["masked_count"]
            own = (log_sum(teacher) - teacher[label]) / s.counts["masked_count"]
            terms["teacher_mlm"] = terms["teacher_mlm"] + own
        if following != -100:
            terms["clm"] = terms["clm"] + (log_sum(student) - student[following]) / s.counts["next_count"]
        if teacher_hidden.shape == hidden.shape:
            cosine = row_cosine(hidden[n], teacher_hidden[n])
            terms["cos"] = terms["cos"] + (1 - cosine) / s.counts["attended_count"]
    return terms


def doubles(s: Setting) -> list[torch.Tensor]:
    return [leaf.detach().double().requires_grad_() for leaf in s.leaves]


def assert_close(found: torch.Tensor, wanted: torch.Tensor, floor: float) -> None:
    """fp32 to float64. One rounding is 2^-24 of the size of what is rounded; chains of products and sums as long as
    here (width 8, a log-sum over the vocabulary, a difference of two of them) add up to some ten. 64 roundings, 4e-6,
    of the largest entry, or of ``floor``: the size of the numbers that a difference was taken of."""
    scale = max(float(wanted.abs().max()), floor)
    assert float((found.detach().double() - wanted).abs().max()) <= 64 * 2**-24 * scale


# Sizes of what is subtracted: KL is T^2 times a difference of two cross-entropies of about log V + |logits|.
def floor_of(s: Setting, t: float) -> float:
    logits = float(s.weight.detach().abs().sum(1).max() + s.bias.detach().abs().max())
    return t * t * (math.log(len(s.bias)) + logits)


def check_against_definition(s: Setting, t: float, alphas: dict[str, float], restrict: bool) -> None:
    given = {f"alpha_{name}": alpha for name, alpha in alphas.items()}
    found = s.loss(temperature=t, restrict_ce_to_mask=restrict, **given)
    leaves = doubles(s)
    terms = defined(s, leaves, t, restrict)
    total = sum(alpha * terms[name] for name, alpha in alphas.items())
    weight = max(1.0, *alphas.values())
    floor = floor_of(s, t)
    assert_close(found.total, total.detach(), weight * floor)
    soft = bool({"ce", "mse"} & alphas.keys())
    for i, name in enumerate(TERMS):
        computed = name in alphas or name == "mlm" or (name == "teacher_mlm" and soft)
        wanted = terms[name].detach() if computed else torch.zeros((), dtype=torch.double)
        assert_close(found.terms[i], wanted, floor if computed else 0.0)
    if not total.requires_grad:
        return
    wanted = torch.autograd.grad(total, leaves, materialize_grads=True)
    found_grads = torch.autograd.grad(found.total, s.leaves, materialize_grads=True)
    for one, other in zip(found_grads, wanted, strict=True):
        assert_close(one, other, weight * t)  # softmaxes, differences of numbers up to 1, times T


# --- precision: one problem in several types -----------------------------------------------------------------------


class Outcome(NamedTuple):
    """Terms and gradients of a loss, in whatever type they came."""

    terms: torch.Tensor
    hidden: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor


def errors(found: torch.Tensor, wanted: torch.Tensor) -> tuple[float, float]:
    """Largest and root-mean-square distance from the truth."""
    apart = (found.detach().double() - wanted).abs()
    return float(apart.max()), math.sqrt(float(apart.square().mean()))


class Precise:
    """A loss whose inputs are exactly representable in ``dtype``, and its truth: the definition in float64."""

    def __init__(
        self, rows: int, vocabulary: int, dtype: torch.dtype, *, masked=0.3, size=1.0, ties=False, upstream=1.0,
        clm=False, mse=False, restrict=False, bias=True, width=16, everything_ignored=False, count=None,
        device="cpu",
    ) -> None:  # fmt: skip
        draw = torch.Generator().manual_seed(rows + vocabulary)

        def tensor(*shape: int, by: float = 1.0) -> torch.Tensor:
            drawn = torch.randn(*shape, generator=draw, dtype=torch.float64) * by
            return ((drawn * 2).round() / 2 if ties else drawn).to(dtype)

        self.dtype, self.upstream, self.rows, self.bias = dtype, upstream, rows, bias
        self.tensors = {
            "hidden": tensor(rows, 16), "weight": tensor(vocabulary, 16, by=size), "bias": tensor(vocabulary),
            "teacher_hidden": tensor(rows, width), "teacher_weight": tensor(vocabulary, width, by=size),
            "teacher_bias": tensor(vocabulary),
        }  # fmt: skip
        count_masked = 0 if everything_ignored else math.ceil(masked * rows)
        labels, following = torch.full((rows,), -100), torch.full((rows,), -100)
        masked_rows = torch.randperm(rows, generator=draw)[:count_masked]
        labels[masked_rows] = torch.randint(vocabulary, (count_masked,), generator=draw)
        if clm and not everything_ignored:
            following[:-1] = torch.randint(vocabulary, (rows - 1,), generator=draw)
            following[0] = labels[0] if labels[0] >= 0 else following[0]  # one token may be both
        self.tensors |= {"labels": labels, "next": following}
        self.tensors = {name: drawn.to(device) for name, drawn in self.tensors.items()}
        many = count or rows
        self.counts = {"attended_count": many, "masked_count": count or count_masked, "next_count": many}
        self.weights = {"alpha_ce": 5.0, "alpha_mlm": 2.0, "alpha_cos": 1.0 if width == 16 else 0.0}
        self.weights |= {"alpha_clm": 1.5 if clm else 0.0, "alpha_mse": 0.01 if mse else 0.0}
        self.weights |= {"restrict_ce_to_mask": restrict}

    def leaves(self, dtype: torch.dtype | None = None) -> list[torch.Tensor]:
        names = ("hidden", "weight", "bias") if self.bias else ("hidden", "weight")
        return [self.tensors[n].detach().to(dtype or self.tensors[n].dtype).requires_grad_() for n in names]

    def loss(self, leaves, rows=slice(None), **options: float):
        hidden, weight, bias = leaves if self.bias else (*leaves, None)
        teacher = {n: self.tensors[f"teacher_{n}"] for n in ("hidden", "weight", "bias")}
        if hidden.dtype == torch.float64:
            teacher = {n: t.double() for n, t in teacher.items()}
        identity = torch.nn.Identity()
        return triple_loss(
            hidden[rows], Head(identity, weight, bias), teacher["hidden"][rows],
            Head(identity, teacher["weight"], teacher["bias"] if self.bias else None), self.tensors["labels"][rows],
            self.tensors["next"][rows], **self.counts, **self.weights, **options,
        )  # fmt: skip

    def _outcome(self, terms, leaves) -> Outcome:
        zero = torch.zeros((), dtype=torch.float64, device=terms.device)
        gradients = [zero if leaf.grad is None else leaf.grad for leaf in leaves]
        return Outcome(terms, *gradients, *([zero] if not self.bias else []))

    def run(self, **options: float) -> Outcome:
        """In the tensors' own types, on the path in use."""
        leaves = self.leaves()
        found = self.loss(leaves, **options)
        (found.total * self.upstream).backward()
        return self._outcome(found.terms, leaves)

    def truth(self, **options: float) -> Outcome:
        """By the definition in float64, some rows at a time: their shares sum to the whole."""
        leaves, terms = self.leaves(torch.float64), torch.zeros(len(TERMS), dtype=torch.float64)
        terms = terms.to(leaves[0].device)
        with using("reference"):
            for first in range(0, self.rows, 100):
                found = self.loss(leaves, slice(first, first + 100), **options)
                (found.total * self.upstream).backward()
                terms += found.terms
        return self._outcome(terms, leaves)

    def truth_logits(self) -> torch.Tensor:
        hidden, weight = self.tensors["hidden"].double(), self.tensors["weight"].double()
        return hidden @ weight.T + self.tensors["bias"].double()

    def of_logits(self) -> float:
        """Largest logit."""
        with torch.no_grad():
            return float(self.truth_logits().abs().max())


def check(s: Precise, path: object, chunk_rows: int | None = 512, **options: float) -> None:
    """Value and gradients on a path are at most twice as far from the truth as the definition's in the same type.

    Plus a few roundings. Of a term, 4 of fp32 (2^-24) of what it sums: differences from the largest logit, times T; and
    of a logit's rounding in 16 bits a hundredth, which is what is left in a mean over ten thousand of them by chance.
    Of a gradient, one of its type, which eager code makes at a place of its own choice, and 8 of fp32 of its size.
    """
    truth = s.truth(**options)
    with using("reference"):
        eager = s.run(**options)
    with using(path, chunk_rows):
        found = s.run(**options)
    span = 2 * s.of_logits() * options["temperature"]
    for i, name in enumerate(TERMS):
        noise = torch.finfo(s.dtype).eps / 128 * s.of_logits() if s.dtype.itemsize == 2 else 0.0
        floor = {"cos": 2.0, "mse": float(truth.terms[i])}.get(name, span)
        mine, theirs = (float((one.terms[i].double() - truth.terms[i]).abs()) for one in (found, eager))
        assert mine <= 2 * theirs + 4 * 2**-24 * floor + noise, f"{name}: error {mine}, eager {theirs}, floor {floor}"
    for name, is_, was, wanted in list(zip(truth._fields, found, eager, truth, strict=True))[1:]:
        size = max(float(wanted.abs().max()), s.upstream / s.counts["attended_count"])
        tiny = 8 * 2**-24 * size + 0.5 * torch.finfo(s.dtype).eps * float(wanted.abs().max())
        for kind, mine, theirs in zip(
            ("largest", "mean square"), errors(is_, wanted), errors(was, wanted), strict=True
        ):
            assert mine <= 2 * theirs + tiny, f"{name}: {kind} error {mine}, eager {theirs}, tiny {tiny}"
