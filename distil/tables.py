"""The tables of a recipe: every number of the mathematics, documented where it is declared and held to its range.

Every number is stated in a recipe's file, so nothing that decides the result hides in a default; only what is switched
off unless asked for has one.
"""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Self

from distil.errors import ConfigError
from distil.fields import option, require

_WEIGHTED = re.compile(r"(.+):(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+)")
_PAIR = re.compile(r"\d+:\d+")
SAME, TEACHER, RANDOM = "same", "teacher", "random"  # the first: a student of its teacher's family


@dataclass(frozen=True, kw_only=True)
class Model:
    teacher: str = option(
        "hub name (NAME@REVISION pins it) or folder of the teacher; sample:NAME or recipe:NAME for built-in material"
    )
    tokenizer: str = option("the student's tokenizer, where it is not the teacher's: name or folder", default="")
    student: str = option("family of the student: distilbert, bert, roberta, gpt2 ..., or same as the teacher's")
    student_depth: int = option(
        "layers of the student, evenly spread over the teacher's, first and last included (0: all)", default=0
    )
    student_layers: tuple[int, ...] = option(
        "instead of student_depth, by hand: teacher layers that initialise the student's, in order, from 0", default=()
    )
    student_hidden: int = option("width of the student (0: the teacher's)", default=0)
    student_heads: int = option("attention heads of the student (0: each as wide as the teacher's, or less)", default=0)
    student_feed_forward: int = option(
        "feed-forward size of the student (0: in the teacher's proportion to the width)", default=0
    )
    initial_weights: str = option("teacher: of its layers, cut to size; random: as a new model's", default=TEACHER)
    dropout: float = option("dropout of the student, in hidden states and attention")

    def __post_init__(self) -> None:
        require(0 <= self.dropout < 1, "dropout", self.dropout, "from 0 to below 1")
        for name in ("student_depth", "student_hidden", "student_heads", "student_feed_forward"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        if self.student_depth and len(self.student_layers) not in (0, self.student_depth):
            raise ConfigError(
                f"student_depth is {self.student_depth}, but student_layers names {len(self.student_layers)}: give one"
            )
        known = (TEACHER, RANDOM)
        require(self.initial_weights in known, "initial_weights", self.initial_weights, " or ".join(known))


@dataclass(frozen=True, kw_only=True)
class Loss:
    temperature: float = option("T of the softened distributions")
    alpha_ce: float = option("weight of T^2 KL(teacher || student) over the attended positions")
    alpha_mlm: float = option("weight of the masked-LM cross-entropy", default=0.0)
    alpha_clm: float = option("weight of the causal-LM cross-entropy", default=0.0)
    alpha_cos: float = option("weight of 1 - cosine of the last hidden states")
    alpha_mse: float = option("weight of the squared difference of the logits", default=0.0)
    alpha_hidden: float = option("weight of the squared difference of the hidden states of hidden_layers", default=0.0)
    hidden_layers: tuple[str, ...] = option(
        "layers that alpha_hidden compares, counted from 0 (default: each of the student's with one of the teacher's, "
        "evenly, last with last)", default=(), metavar="STUDENT:TEACHER",
    )  # fmt: skip
    alpha_relations: float = option("weight of MiniLMv2's relations in the last layer's attention", default=0.0)
    relation_heads: int = option("heads into which queries, keys and values are split for them", default=48)
    relation_layer: int = option("the teacher's layer for them, counted from 0 (-1: its last)", default=-1)
    kd_until: float = option("share of the training after which no term compares with the teacher", default=1.0)
    restrict_ce_to_mask: bool = option("take KL and MSE over predicted positions only", default=False)
    normalize: str = option(
        "global: divide by the global batch's counts; micro_batch: by each one's own", default="global"
    )

    def __post_init__(self) -> None:
        require(self.temperature > 0, "temperature", self.temperature, "above 0")
        require(self.normalize in ("global", "micro_batch"), "normalize", self.normalize, "global or micro_batch")
        alphas = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name.startswith("alpha_")}
        for name, alpha in alphas.items():
            require(alpha >= 0, name, alpha, "0 or more")
        if not any(alphas.values()):
            raise ConfigError(f"every term of the loss has weight 0; give one of --{', --'.join(alphas)} above 0")
        require(self.relation_heads > 0, "relation_heads", self.relation_heads, "above 0")
        require(self.relation_layer >= -1, "relation_layer", self.relation_layer, "-1 or more")
        require(0 < self.kd_until <= 1, "kd_until", self.kd_until, "above 0 and at most 1")
        if self.kd_until < 1 and not (self.alpha_mlm or self.alpha_clm):
            raise ConfigError(
                f"kd_until is {self.kd_until}, but without alpha_mlm or alpha_clm nothing goes on then; give "
                "--kd_until 1"
            )
        for entry in self.hidden_layers:
            require(bool(_PAIR.fullmatch(entry)), "hidden_layers", repr(entry), "STUDENT:TEACHER, such as 2:5")

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with the teacher."""
        return self.compares_logits or self.alpha_cos > 0 or self.alpha_hidden > 0 or self.alpha_relations > 0

    @property
    def compares_logits(self) -> bool:
        """Whether any term needs both models to have one vocabulary."""
        return self.alpha_ce > 0 or self.alpha_mse > 0

    @property
    def hidden_pairs(self) -> tuple[tuple[int, int], ...]:
        """hidden_layers as numbers: (student's layer, teacher's layer)."""
        return tuple((int(student), int(teacher)) for student, teacher in (e.split(":") for e in self.hidden_layers))


@dataclass(frozen=True, kw_only=True)
class Masking:
    """What a masked LM predicts; a recipe of a causal one has no such table."""

    mlm_fraction: float = option("share of a micro-batch's tokens that is predicted; 0 for a causal model")
    mask_share: float = option("share of the predicted tokens that becomes the mask token")
    keep_share: float = option("share of the predicted tokens left as it is; the rest becomes a random token")
    mlm_smoothing: float = option("tokens are drawn in proportion to count^-smoothing")

    def __post_init__(self) -> None:
        require(self.mlm_smoothing >= 0, "mlm_smoothing", self.mlm_smoothing, "0 or more")
        require(0 <= self.mlm_fraction < 1, "mlm_fraction", self.mlm_fraction, "from 0 to below 1")
        shares = (self.mask_share, self.keep_share)
        require(min(shares) >= 0 and sum(shares) <= 1, "mask_share, keep_share", shares, "shares that sum to at most 1")

    @classmethod
    def none(cls) -> Self:
        """Of a recipe without the table: nothing is masked."""
        return cls(mlm_fraction=0.0, mask_share=0.0, keep_share=0.0, mlm_smoothing=0.0)


@dataclass(frozen=True, kw_only=True)
class Data:
    store: tuple[str, ...] = option(
        "prefixes of token stores, or patterns of such, each with :WEIGHT or none; sample:NAME for built-in text",
        metavar="PREFIX[:WEIGHT]",
    )
    max_length: int = option("longest sequence in tokens, [CLS] and [SEP] included")
    batch_size: int = option("global batch, in sequences of max_length tokens")
    micro_batch_size: int = option("micro-batch, in sequences of max_length tokens: a token budget")
    sampling_exponent: float = option(
        "stores without weights are drawn in proportion to size^exponent; below 1 favours the small", default=1.0
    )

    def __post_init__(self) -> None:
        for name in ("max_length", "batch_size", "micro_batch_size"):
            require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        if self.batch_size % self.micro_batch_size:
            raise ConfigError(
                f"contradictory batch numbers: batch_size {self.batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size}; give --batch_size {self._next_multiple()} or another --micro_batch_size"
            )
        weights = [weight for _, weight in self.stores]
        for entry, (prefix, weight) in zip(self.store, self.stores, strict=True):
            require(bool(prefix), "store", repr(entry), "PREFIX or PREFIX:WEIGHT")
            require(weight is None or 0 < weight < math.inf, "weight of store", repr(entry), "above 0")
        if None in weights and set(weights) != {None}:
            raise ConfigError(f"store is {' '.join(self.store)}: give every store a weight, PREFIX:WEIGHT, or none")
        require(0 <= self.sampling_exponent <= 1, "sampling_exponent", self.sampling_exponent, "from 0 to 1")
        if self.sampling_exponent != 1 and set(weights) != {None}:
            both = f"sampling_exponent is {self.sampling_exponent} and store {' '.join(self.store)}"
            raise ConfigError(f"{both}: give --sampling_exponent 1, or stores without weights")
        prefixes = [prefix for prefix, _ in self.stores]
        require(len(set(prefixes)) == len(prefixes), "store", " ".join(self.store), "without repetition")

    def _next_multiple(self) -> int:
        return -(-self.batch_size // self.micro_batch_size) * self.micro_batch_size

    @property
    def stores(self) -> list[tuple[str, float | None]]:
        """Prefix and weight of each store; weights are None where none is given: in proportion to size."""
        found = [_WEIGHTED.fullmatch(entry) for entry in self.store]
        return [
            (match[1], float(match[2])) if match else (entry, None)
            for entry, match in zip(self.store, found, strict=True)
        ]

    @property
    def budget_tokens(self) -> int:
        """Tokens that one micro-batch holds at most."""
        return self.micro_batch_size * self.max_length

    @property
    def micro_batches(self) -> int:
        """Micro-batches in one global batch, over all ranks."""
        return self.batch_size // self.micro_batch_size


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    lr: float = option("peak learning rate")
    adam_beta1: float = option("AdamW's first beta")
    adam_beta2: float = option("AdamW's second beta")
    adam_eps: float = option("AdamW's epsilon")
    weight_decay: float = option("weight decay, never on biases and LayerNorms")
    warmup_fraction: float = option("share of the steps over which lr rises linearly; then it falls linearly to 0")
    max_grad_norm: float = option("gradients are clipped to this global norm")
    epochs: int = option("passes over the store; decides the number of steps where steps is 0")
    steps: int = option("length of the schedule in optimiser steps (0: as epochs say)", default=0)
    seed: int = option("decides order, masks, dropout and any random weight")

    def __post_init__(self) -> None:
        require(self.lr > 0, "lr", self.lr, "above 0")
        for name in ("adam_beta1", "adam_beta2"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")
        require(self.adam_eps > 0, "adam_eps", self.adam_eps, "above 0")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        require(0 <= self.warmup_fraction < 1, "warmup_fraction", self.warmup_fraction, "from 0 to below 1")
        require(self.max_grad_norm > 0, "max_grad_norm", self.max_grad_norm, "above 0")
        require(self.epochs > 0, "epochs", self.epochs, "above 0")
        require(self.steps >= 0, "steps", self.steps, "0 or more")
        require(self.seed >= 0, "seed", self.seed, "0 or more")


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run reports and saves: no part of the mathematics, so a resumed run may change it."""

    log_every: int = option("steps between scalars (the only steps on which the host waits for the device)", default=10)
    eval_every: int = option("steps between evaluations on text held out (0: only at the bounds)", default=500)
    save_every: int = option("steps between checkpoints (0: only at the end)", default=500)
    keep_checkpoints: int = option("newest checkpoints that stay", default=2)
    max_bad_steps: int = option("steps in a row without a finite loss or gradient that end the run", default=10)
    spike_factor: float = option("a loss so many times its running mean is told and counted (0: never)", default=10.0)
    silence_seconds: float = option("a rank that says nothing for so long is lost, and the job ends", default=60.0)
    hang_seconds: float = option("a job in which no micro-batch ends for so long has hung, and ends", default=900.0)

    def __post_init__(self) -> None:
        require(self.log_every > 0, "log_every", self.log_every, "above 0")
        require(self.eval_every >= 0, "eval_every", self.eval_every, "0 or more")
        require(self.save_every >= 0, "save_every", self.save_every, "0 or more")
        require(self.keep_checkpoints > 0, "keep_checkpoints", self.keep_checkpoints, "above 0")
        require(self.max_bad_steps > 0, "max_bad_steps", self.max_bad_steps, "above 0")
        require(self.spike_factor >= 0, "spike_factor", self.spike_factor, "0 or more")
        for name in ("silence_seconds", "hang_seconds"):
            require(getattr(self, name) >= 5, name, getattr(self, name), "5 or more")


@dataclass(frozen=True, kw_only=True)
class HeldoutRun(Run):
    """The same with text held out from training on text."""

    heldout_store: str = option("prefix of the held-out store ('' takes STORE-heldout where it exists)", default="")
    heldout_tokens: int = option("at most so many held-out tokens are evaluated", default=65536)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.heldout_tokens > 0, "heldout_tokens", self.heldout_tokens, "above 0")
