"""Bytes that a rank needs on its device, by what they are for.

What torch keeps of a forward pass for the backward one is counted by the tensors that eager code saves a layer, each
once however many operations saved it (held against torch's own in the tests). What a step needs and drops again is the
larger of the teacher's forward pass and the loss's chunk, which never stand together.
"""

from __future__ import annotations

import json
import math
from functools import cache
from typing import NamedTuple

import torch
import transformers

from distil.models.comparison import Comparison
from distil.models.families import FAMILIES, family_of
from distil.planning.communication import BUCKET, offloads, states_offload
from distil.planning.machines import Device
from distil.planning.outline import Outline
from distil.planning.passes import COMPOSED, dropouts, head_of
from distil.planning.products import Rows
from distil.planning.rates import ITEMSIZE

# Of the libraries: CUDA's context with cuBLAS's and NCCL's buffers, and what the allocator cannot give out; assumed.
CONTEXT_BYTES, FRAGMENTED = 1.5 * 2**30, 0.1
FP32 = 4


class Part(NamedTuple):
    """A part of the memory; ``beside`` those of which only the largest counts."""

    name: str
    bytes: float
    beside: bool = False


class Memory(NamedTuple):
    """All parts, and what the device has."""

    parts: tuple[Part, ...]
    available: float

    @property
    def total(self) -> float:
        """The most that stands at once."""
        lasting = sum(part.bytes for part in self.parts if not part.beside)
        return lasting + max((part.bytes for part in self.parts if part.beside), default=0.0)

    @property
    def fits(self) -> bool:
        """Whether the device has so much."""
        return self.total <= self.available


def parameters_of(config: transformers.PreTrainedConfig) -> int:
    """Parameters of a language model of this config, tied ones once."""
    return _parameters(family_of(config).name, config.to_json_string())


@cache
def _parameters(family: str, config: str) -> int:
    of = FAMILIES[family]
    with torch.device("meta"):
        model = of.model_class(of.config_class(**json.loads(config)))
    return sum(parameter.numel() for parameter in model.parameters())


def memory(outline: Outline, device: Device, ranks: int) -> Memory:
    """What a rank of this job needs on a device."""
    placement, loss = outline.placement, outline.recipe.loss
    size = ITEMSIZE[placement.precision]
    rows = max(outline.rows, key=lambda of: of.attended)
    trained = parameters_of(outline.student) + _projection(outline)
    parts = list(_state(placement.config, trained, size, ranks, placement.precision, device.type))
    at = head_of(outline.student, loss, loss.needs_teacher, rows, device.type, device.memory, size)
    vocabulary, hidden = (family_of(outline.student).number(outline.student, n) for n in ("vocabulary", "hidden"))
    parts += [
        Part("saved for the backward pass", saved(outline.student, rows, size, device.type)),
        # Formed in the forward pass: of the rows, and of the weight, in fp32 unless one chunk takes all.
        Part("gradients of the head", hidden * (at.rows * size + vocabulary * (FP32 if at.rows > at.chunk else size))),
        Part("loss, a chunk of logits", at.chunk * vocabulary * size * (2 if at.soft else 1), beside=True),
    ]
    if loss.needs_teacher:
        parts.insert(0, Part("teacher's weights", parameters_of(outline.teacher) * size))
        parts.append(Part("teacher's forward pass", _transient(outline.teacher, rows, size), beside=True))
    if device.type == "cuda":
        lasting = sum(part.bytes for part in parts)
        parts.append(Part("CUDA, NCCL and fragments (assumed)", CONTEXT_BYTES + FRAGMENTED * lasting))
    return Memory(tuple(parts), device.memory)


def _projection(outline: Outline) -> int:
    compared = Comparison.of(outline.recipe.loss, outline.student, outline.teacher)
    if not compared.projected:
        return 0
    return math.prod(family_of(config).number(config, "hidden") for config in (outline.student, outline.teacher))


def _state(config: dict, parameters: int, size: int, ranks: int, precision: str, kind: str) -> list[Part]:
    """Weights, gradients and what the optimiser holds, as DeepSpeed 0.19.8 lays them out at the ds_config's stage."""
    stage = config["zero_optimization"].get("stage", 0)
    own = parameters / (1 if stage == 0 else ranks)
    weights = (own if stage == 3 else parameters) * size
    parts = [Part("student's weights", weights)]
    sums_in_fp32 = config.get("data_types", {}).get("grad_accum_dtype") == "fp32" and precision != "fp32"
    parts.append(Part("gradients", (own if stage >= 2 else parameters) * size))
    if sums_in_fp32:
        parts.append(Part("sums of gradients in fp32", (own if stage >= 2 else parameters) * FP32))
    # Stage 0 in fp32 trains the weights themselves; every other way has fp32 ones beside them.
    copies = 2 if stage == 0 and precision == "fp32" else 3
    if not offloads(config, kind):
        parts.append(Part("fp32 weights and Adam's moments", own * copies * FP32))
        parts.append(Part("gradients of a step in fp32", own * FP32, beside=True))
    if bucket := _buckets(config, size, precision, sums_in_fp32):
        parts.append(Part("buckets of gradients", bucket))
    return parts


def _buckets(config: dict, size: int, precision: str, sums_in_fp32: bool) -> int:
    """Bytes of the buckets that gradients are laid out in, whole ones whatever the model's size.

    In DeepSpeed 0.19.8 ``setup_buckets`` of zero/stage_1_and_2.py makes one, or two with ``overlap_comm``, in stage 1
    of the type that is summed in; ``_setup_for_real_optimizer`` of zero/stage3.py makes one. Its bf16_optimizer, which
    stage 1 becomes with bf16 and sums in fp32, has none.
    """
    zero = config["zero_optimization"]
    stage, offloaded = zero.get("stage", 0), states_offload(config)
    contiguous = zero.get("contiguous_gradients", True) or (stage < 3 and offloaded)
    bf16_optimizer = stage == 1 and precision == "bf16" and sums_in_fp32 and not offloaded
    if stage == 0 or not contiguous or bf16_optimizer:
        return 0
    elements = int(zero.get("reduce_bucket_size", BUCKET))
    if stage == 3:
        return elements * size
    return elements * (FP32 if stage == 1 and sums_in_fp32 else size) * (2 if zero.get("overlap_comm") else 1)


def saved(config: transformers.PreTrainedConfig, rows: Rows, size: int, kind: str) -> float:
    """Bytes that the forward pass of a student keeps on a device of this ``kind``, its head's transform included."""
    family = family_of(config)
    layers, heads, hidden, inner = (family.number(config, n) for n in ("layers", "heads", "hidden", "feed_forward"))
    embedded = getattr(config, "embedding_size", hidden)
    wide, inside = kept_a_layer(config)
    token = layers * (wide * hidden + inside * inner) * size  # tensors of the layers
    token += layers * (heads * FP32 + 4 * size)  # attention's log-sum-exps, norms' means and deviations
    token += (embedded + hidden * (embedded != hidden)) * size + 16  # the embeddings' norm; ids and positions
    rates = {name: getattr(config, name) for name in family.dropouts}
    mask = 1 if kind == "cuda" else size  # of dropout: bools, or the factors themselves
    if any(rate for name, rate in rates.items() if not name.startswith("att")):
        token += (layers * dropouts(config) * hidden + embedded) * mask
    total = rows.attended * token
    if kind == "cpu" and any(rate for name, rate in rates.items() if name.startswith("att")):
        # Without a kernel for it, in fp32: probabilities before and after, the mask; queries, keys and values, too.
        longest = max(rows.lengths)
        places = len(rows.lengths) * longest
        total += layers * places * (3 * heads * longest * FP32 + 3 * hidden * (FP32 - size))
    return total


def kept_a_layer(config: transformers.PreTrainedConfig) -> tuple[int, int]:
    """Tensors of the hidden and of the feed-forward width that a layer saves.

    Inputs of the projections, queries, keys, values, attention's output, inputs and outputs of the norms: 8; rotary
    positions keep both what they turn and what comes of it. The activation's input and output: 2, and more where it is
    composed of plain operations or gated.
    """
    family = family_of(config)
    gated = family.stacked.get("layer.feed_forward_in", 1) > 1
    composed = getattr(config, family.config["activation"]) in COMPOSED
    return 8 + 2 * family.even_heads, 2 + 3 * composed + 2 * gated


def _transient(config: transformers.PreTrainedConfig, rows: Rows, size: int) -> float:
    """The most that a forward pass without gradients holds: in the feed-forward part, its input, inside and output."""
    family = family_of(config)
    hidden, inner = (family.number(config, n) for n in ("hidden", "feed_forward"))
    return rows.attended * (3 * hidden + 2 * inner * family.stacked.get("layer.feed_forward_in", 1)) * size
