"""The matrix products of a training step as data: of what shapes, and how many of each.

Shapes follow the code that runs: packed rows, so no padding but what attention adds by itself; heads on the rows that
a loss needs. A backward pass has two more products for each of a forward one. Attention is counted whole, also where a
causal or a windowed layer could leave places out, as is the custom for FLOPs (and what torch's own counter does).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import transformers

from distil.models.comparison import Comparison
from distil.models.families import family_of
from distil.tables import Loss

FORWARD, INPUT_GRADIENT, WEIGHT_GRADIENT = "forward", "input gradient", "weight gradient"


class Product(NamedTuple):
    """A matrix product (rows, inner) x (inner, columns), ``times`` of it; ``kind`` says which operand the other is.

    ``inside`` where it is part of an attention kernel, which other code makes than a plain product.
    """

    name: str
    kind: str
    rows: int
    inner: int
    columns: int
    times: int = 1
    inside: bool = False

    @property
    def flops(self) -> int:
        """Floating-point operations, a multiplication and an addition counted as two."""
        return 2 * self.rows * self.inner * self.columns * self.times

    def backward(self) -> tuple[Product, Product]:
        """The products that take the gradient of the result to those of the two factors."""
        return (
            self._replace(kind=INPUT_GRADIENT, inner=self.columns, columns=self.inner),
            self._replace(kind=WEIGHT_GRADIENT, rows=self.inner, inner=self.rows),
        )


class Rows(NamedTuple):
    """Of a packed micro-batch: lengths of its sequences, and how many rows are to be predicted."""

    lengths: Sequence[int]
    predicted: int

    @property
    def attended(self) -> int:
        """Tokens in it."""
        return sum(self.lengths)


def flops(products: Iterable[Product]) -> int:
    """Of all together."""
    return sum(product.flops for product in products)


def encoder(config: transformers.PreTrainedConfig, lengths: Sequence[int]) -> list[Product]:
    """Forward products of a model without its head on packed sequences of these lengths."""
    family, rows = family_of(config), sum(lengths)
    layers, heads = (family.number(config, name) for name in ("layers", "heads"))
    products = []
    for name, (inner, columns) in _linear_layers(config).items():
        if name.startswith("layer."):
            products.append(Product(name.removeprefix("layer."), FORWARD, rows, inner, columns, layers))
        elif name == "embeddings_out":
            products.append(Product(name, FORWARD, rows, inner, columns))
    width = family.number(config, "hidden") // heads
    for length, sequences in sorted(Counter(lengths).items()):
        times = layers * heads * sequences
        products.append(Product("scores", FORWARD, length, width, length, times, inside=True))
        products.append(Product("context", FORWARD, length, length, width, times, inside=True))
    return products


def head(config: transformers.PreTrainedConfig, transformed: int, decoded: int | None = None) -> list[Product]:
    """Forward products of a model's head: its transform on some rows, the vocabulary's product on these or others."""
    rows = {"head.dense": transformed, "head.decoder": transformed if decoded is None else decoded}
    layers = _linear_layers(config)
    return [Product(name, FORWARD, n, *layers[name]) for name, n in rows.items() if n and name in layers]


def everywhere(loss: Loss, taught: bool) -> bool:
    """Whether logits are made of all attended rows, and not of the predicted ones alone."""
    return loss.alpha_clm > 0 or (taught and loss.compares_logits and not loss.restrict_ce_to_mask)


def distillation(
    student: transformers.PreTrainedConfig, teacher: transformers.PreTrainedConfig | None, loss: Loss, rows: Rows
) -> tuple[list[Product], list[Product]]:
    """Products of one micro-batch: the teacher's, and the student's with the loss's, forward and backward.

    Without a ``teacher``, as when none is compared with (or no more), the student learns from labels alone.
    """
    soft = teacher is not None and loss.compares_logits
    restricted = loss.restrict_ce_to_mask
    of_teacher: list[Product] = []
    if teacher is not None:
        of_teacher = encoder(teacher, rows.lengths)
        if soft:
            of_teacher += head(teacher, rows.predicted if restricted else rows.attended)
    forward = encoder(student, rows.lengths)
    of_student = [*forward, *_backward(forward)]
    transformed = decoded = rows.attended if everywhere(loss, teacher is not None) else rows.predicted
    if loss.alpha_clm > 0 and soft and restricted:  # two sets of logits: see kernels.fused
        decoded += rows.predicted
    of_head = head(student, transformed, decoded)
    learns = soft or loss.alpha_mlm > 0 or loss.alpha_clm > 0
    # Of logits without a weight the gradient is 0, which only the transform still multiplies.
    of_student += [*of_head, *_backward(p for p in of_head if learns or p.name != "head.decoder")]
    if teacher is not None:
        of_student += _compared(student, teacher, loss, rows)
    return of_teacher, of_student


def _compared(
    student: transformers.PreTrainedConfig, teacher: transformers.PreTrainedConfig, loss: Loss, rows: Rows
) -> list[Product]:
    """Products of the terms beyond logits: projections to the teacher's width, relations in attention."""
    compared, products = Comparison.of(loss, student, teacher), []
    widths = [family_of(config).number(config, "hidden") for config in (student, teacher)]
    if compared.projected:
        times = len(compared.pairs) + (loss.alpha_cos > 0)
        projection = Product("projection", FORWARD, rows.attended, *widths, times)
        products += [projection, *projection.backward()]
    if compared.relations is not None:
        for length, sequences in sorted(Counter(rows.lengths).items()):
            times = 3 * loss.relation_heads * sequences  # of queries, keys and values
            for width in (width // loss.relation_heads for width in widths):
                products.append(Product("relations", FORWARD, length, width, length, times, inside=True))
            own = widths[0] // loss.relation_heads
            # The scores have the same factor twice, so one product is both gradients (models.matching).
            products.append(Product("relations", INPUT_GRADIENT, length, length, own, times, inside=True))
    return products


def _backward(products: Iterable[Product]) -> list[Product]:
    return [gradient for product in products for gradient in product.backward()]


def _linear_layers(config: transformers.PreTrainedConfig) -> dict[str, tuple[int, int]]:
    """Input and output widths of a family's linear layers by their common names."""
    family = family_of(config)
    hidden, inner, vocabulary = (family.number(config, name) for name in ("hidden", "feed_forward", "vocabulary"))
    embedded = getattr(config, "embedding_size", hidden)  # ALBERT's, narrower than its layers
    widths = {
        "embeddings_out": (embedded, hidden),
        "layer.query": (hidden, hidden),
        "layer.key": (hidden, hidden),
        "layer.value": (hidden, hidden),
        "layer.query_key_value": (hidden, hidden),
        "layer.attention_output": (hidden, hidden),
        "layer.feed_forward_in": (hidden, inner),
        "layer.feed_forward_out": (inner, hidden),
        "head.dense": (hidden, embedded),
        "head.decoder": (embedded, vocabulary),
    }
    return {
        name: (rows, columns * family.stacked.get(name, 1))
        for name, (rows, columns) in widths.items()
        if name in family.modules
    }
