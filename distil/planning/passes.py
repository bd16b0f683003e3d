"""What a step does beside matrix products, as data: passes over rows, logits and parameters.

Counted as eager code makes them, an operation of the models after the other. ``TENSORS`` has how many tensors of the
pass's size each reads and writes, which is what it takes where memory is the limit, as on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import transformers

from distil.kernels import chunks
from distil.models.families import family_of
from distil.planning.products import FORWARD, Rows, everywhere
from distil.tables import Loss

BACKWARD = "backward"
# Of the pass's own size, read and written; masks of dropout are a byte on a GPU, counted as half a tensor of 16 bits.
TENSORS = {
    ("norm", FORWARD): 2.0,
    ("norm", BACKWARD): 3.0,
    ("activation", FORWARD): 2.0,
    ("activation", BACKWARD): 3.0,
    ("gate", FORWARD): 3.0,
    ("gate", BACKWARD): 5.0,
    ("dropout", FORWARD): 2.5,
    ("dropout", BACKWARD): 2.5,
    ("add", FORWARD): 3.0,
    ("add", BACKWARD): 3.0,
    ("cosine", FORWARD): 2.0,
    ("cosine", BACKWARD): 3.0,
    ("lookup", FORWARD): 2.0,
    ("lookup", BACKWARD): 2.0,
    ("bias gradient", BACKWARD): 1.0,
    ("loss", FORWARD): 5.0,  # two logits read twice, a gradient written over one: kernels.fused
    ("labels' loss", FORWARD): 3.0,  # without a teacher's logits
    ("word gradient", BACKWARD): 1.0,  # of all words, most of them zeros
    ("scaled", BACKWARD): 3.0,  # of a sum in fp32 to the type of the weights
    ("sum", BACKWARD): 3.0,
}
COMPOSED = ("gelu_new", "gelu_fast", "gelu_python")  # of plain operations in transformers: several passes
COMPOSED_PASSES = 8


class Pass(NamedTuple):
    """An operation over ``rows`` x ``width`` elements, ``times`` of it; ``bytes`` of an element or, 0, the type's."""

    name: str
    kind: str
    rows: int
    width: int
    times: int = 1
    bytes: int = 0

    def traffic(self, itemsize: int) -> float:
        """Bytes read and written."""
        return TENSORS[self.name, self.kind] * self.rows * self.width * self.times * (self.bytes or itemsize)


class Attention(NamedTuple):
    """What one layer's attention kernel is given, ``times`` of it: sequences of some lengths, heads of some width."""

    lengths: tuple[int, ...]
    heads: int
    width: int
    causal: bool
    dropout: float
    kind: str
    times: int

    @property
    def flops(self) -> int:
        """Of its products: of scores and context, and twice as many backward."""
        squares = sum(length**2 for length in self.lengths)
        return (4 if self.kind == FORWARD else 8) * squares * self.heads * self.width * self.times

    def traffic(self, itemsize: int) -> float:
        """Bytes read and written by a kernel that keeps scores on chip."""
        return (4 if self.kind == FORWARD else 8) * sum(self.lengths) * self.heads * self.width * itemsize * self.times


def attention(config: transformers.PreTrainedConfig, lengths: Sequence[int], training: bool) -> list[Attention]:
    """A model's, forward and, in ``training``, backward."""
    family = family_of(config)
    layers, heads, hidden = (family.number(config, name) for name in ("layers", "heads", "hidden"))
    dropout = getattr(config, next(filter(_of_attention, family.dropouts))) if training else 0.0
    one = Attention(tuple(lengths), heads, hidden // heads, family.causal, dropout, FORWARD, layers)
    return [one, one._replace(kind=BACKWARD)] if training else [one]


def encoder(config: transformers.PreTrainedConfig, rows: int, training: bool) -> list[Pass]:
    """Passes of a model without its head over so many rows, forward and, in ``training``, backward."""
    family = family_of(config)
    layers, hidden, inner = (family.number(config, name) for name in ("layers", "hidden", "feed_forward"))
    embedded = getattr(config, "embedding_size", hidden)
    found = [("norm", embedded, 1), ("norm", hidden, 2 * layers), ("add", hidden, 2 * layers)]
    found += [("activation", inner, layers * _activation_passes(config))]
    if family.stacked.get("layer.feed_forward_in", 1) > 1:
        found.append(("gate", inner, layers))
    if training and any(getattr(config, name) > 0 for name in family.dropouts if not _of_attention(name)):
        found += [("dropout", embedded, 1), ("dropout", hidden, layers * dropouts(config))]
    tables = [name for name in family.modules if name.endswith("_embeddings")]
    found += [("lookup", embedded, len(tables)), ("add", embedded, len(tables) - 1)]
    passes = [Pass(name, FORWARD, rows, width, times) for name, width, times in found if times]
    if training:
        passes += [p._replace(kind=BACKWARD) for p in passes if p.name not in ("add", "lookup")]
        # The ways of a gradient through a layer meet: two around each half, three into queries, keys and values.
        passes.append(Pass("add", BACKWARD, rows, hidden, 4 * layers))
        passes += [Pass("bias gradient", BACKWARD, rows, width, layers) for width in (*[hidden] * 5, inner)]
        passes += [Pass("lookup", BACKWARD, rows, embedded, len(tables) - 1)] if len(tables) > 1 else []
        passes += [Pass("word gradient", BACKWARD, family.number(config, "vocabulary"), embedded)]
    return passes


def head(config: transformers.PreTrainedConfig, rows: int, training: bool) -> list[Pass]:
    """Of a head's transform."""
    family = family_of(config)
    if "head.dense" not in family.modules or not rows:
        return []
    width = getattr(config, "embedding_size", family.number(config, "hidden"))
    passes = [Pass("activation", FORWARD, rows, width), Pass("norm", FORWARD, rows, width)]
    return passes + [p._replace(kind=BACKWARD) for p in passes] if training else passes


class Head(NamedTuple):
    """Where the loss is taken: rows of logits, whether a teacher's stand beside them, and rows held at once."""

    rows: int
    soft: bool
    chunk: int


def head_of(config: transformers.PreTrainedConfig, loss: Loss, taught: bool, rows: Rows, kind: str, memory: int,
            itemsize: int) -> Head:  # fmt: skip
    """On a device of this ``kind`` with so much ``memory``."""
    soft = taught and loss.compares_logits
    count = rows.attended if everywhere(loss, taught) else rows.predicted
    vocabulary = family_of(config).number(config, "vocabulary")
    return Head(count, soft, chunks.sizes_on(kind, memory, count, vocabulary, itemsize).chunk)


def losses(config: transformers.PreTrainedConfig, loss: Loss, taught: bool, rows: Rows, at: Head) -> Iterator[Pass]:
    """Of the terms: logits, cosine, sums of the head's weight gradient over chunks and with the embeddings'."""
    family = family_of(config)
    hidden, vocabulary = (family.number(config, name) for name in ("hidden", "vocabulary"))
    embedded = getattr(config, "embedding_size", hidden)
    yield Pass("loss" if at.soft else "labels' loss", FORWARD, at.rows, vocabulary)
    if taught and loss.alpha_cos > 0:
        yield Pass("cosine", FORWARD, rows.attended, hidden)
        yield Pass("cosine", BACKWARD, rows.attended, hidden)
    parts = -(-at.rows // at.chunk)
    if parts > 1:
        yield Pass("sum", BACKWARD, vocabulary, embedded, parts - 1, bytes=4)
    yield Pass("scaled", BACKWARD, vocabulary, embedded)  # by what arrives
    yield Pass("sum", BACKWARD, vocabulary, embedded)  # with the embeddings'


def _of_attention(dropout: str) -> bool:
    return dropout.startswith("att")


def _activation_passes(config: transformers.PreTrainedConfig) -> int:
    family = family_of(config)
    return COMPOSED_PASSES if getattr(config, family.config["activation"]) in COMPOSED else 1


def dropouts(config: transformers.PreTrainedConfig) -> int:
    """Dropouts of hidden states in a layer: after attention and feed-forward; DistilBERT's only after the latter."""
    return 1 if config.model_type == "distilbert" else 2
