"""Attention over packed sequences, registered with transformers so that its stock models run without padding.

Queries, keys and values come as one row of N tokens; a token attends to those of its own sequence. Every matrix
product of the model sees real tokens only. Attention itself pads only where no kernel takes sequences of any lengths
(``distil.models.attention`` says where one does).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn
from transformers import AttentionInterface

from distil.data.batch import PackedBatch
from distil.kernels import attention as cpu_attention
from distil.models import attention
from distil.tasks.batch import TaskBatch

PACKED = "distil_packed"

QKV = tuple[Tensor, Tensor, Tensor]  # queries, keys and values of a packed batch, each (1, A, N, d)


class Padding:
    """Where each of N packed tokens lies in B rows of L places, worked out once for all layers."""

    def __init__(self, cu_seqlens_B1: Tensor, longest: int, position_ids_N: Tensor) -> None:
        self.cu_seqlens_B1 = cu_seqlens_B1
        starts_B = cu_seqlens_B1[:-1].long()
        lengths_B = cu_seqlens_B1[1:].long() - starts_B
        self.rows, self.longest = len(starts_B), longest
        row_N = torch.repeat_interleave(
            torch.arange(self.rows, device=starts_B.device), lengths_B, output_size=len(position_ids_N)
        )
        self.slot_N = row_N * longest + position_ids_N
        self.full = len(position_ids_N) == self.rows * longest
        self._lengths_B = lengths_B
        self._masks: dict[int | None, Tensor | None] = {}  # by window

    def mask(self, window: int | None) -> Tensor | None:
        """Where a query may look, bool (B, 1, 1 or L, L), at most ``window`` away; None: everywhere."""
        if window not in self._masks:
            places_L = torch.arange(self.longest, device=self._lengths_B.device)
            mask = None if self.full else (places_L < self._lengths_B[:, None])[:, None, None, :]
            if window is not None and window < self.longest - 1:
                near_LL = (places_L[:, None] - places_L).abs() <= window
                # A query in the padding has all its keys there, too: it must see something, or it would be NaN.
                mask = near_LL if mask is None else near_LL & (mask | ~mask.transpose(2, 3))
            self._masks[window] = mask
        return self._masks[window]

    def pad(self, x_1ANd: Tensor, fill: float = 0.0) -> Tensor:
        """(1, A, N, d) to (B, A, L, d), ``fill`` where there is no token."""
        x_NAd = x_1ANd.squeeze(0).transpose(0, 1)
        if not self.full:
            x_NAd = x_NAd.new_full((self.rows * self.longest, *x_NAd.shape[1:]), fill).index_copy(0, self.slot_N, x_NAd)
        return x_NAd.reshape(self.rows, self.longest, *x_NAd.shape[1:]).transpose(1, 2)

    def unpad(self, x_BALd: Tensor) -> Tensor:
        """(B, A, L, d) to (1, N, A, d)."""
        x = x_BALd.transpose(1, 2).flatten(0, 1)
        return (x if self.full else x.index_select(0, self.slot_N)).unsqueeze(0)


class Capture:
    """Keeps what the attention of one layer, counted from 0, is given in a forward pass; a new one for each pass.

    Layers call ``packed_attention`` once each, in order, so a call's number is its layer's.
    """

    def __init__(self, layer: int) -> None:
        self.layer, self.calls = layer, 0
        self._seen: QKV | None = None

    def take(self, query: Tensor, key: Tensor, value: Tensor) -> None:
        """Note a layer's call, and what it was given if it is the one."""
        if self.calls == self.layer:
            self._seen = (query, key, value)
        self.calls += 1

    @property
    def seen(self) -> QKV:
        """Queries, keys and values of the layer, with their gradients' way back."""
        if self._seen is None:
            raise ValueError(f"attention was called {self.calls} times, so there is no layer {self.layer} to capture")
        return self._seen


@torch.compiler.disable  # kernels of its own, and Python that looks at lengths
def packed_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
    padding: Padding, scaling: float | None = None, dropout: float = 0.0, sliding_window: int | None = None,
    capture: Capture | None = None, **_: object,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention within each packed sequence; inputs (1, A, N, d), output (1, N, A, d).

    Without a look ahead where the module is causal. ``sliding_window`` is 1 more than the distance at which a token is
    still seen, as ModernBERT passes it.
    """
    if capture is not None:
        capture.take(query, key, value)
    causal = getattr(module, "is_causal", False)
    window = None if sliding_window is None else sliding_window - 1
    kernel = attention.kernel_for(
        attention.capability_of(query.device), query.dtype, head=query.shape[-1], dropout=dropout, window=window
    )
    if kernel is not None:
        ends, longest, how = padding.cu_seqlens_B1, padding.longest, {"causal": causal, "window": window}
        out = attention.attend(kernel, query, key, value, ends, longest, dropout=dropout, scaling=scaling, **how)
        return out, None
    scale, of_cpu = query.shape[-1] ** -0.5 if scaling is None else scaling, cpu_attention.in_use.get()
    if of_cpu is not None and cpu_attention.takes(query, key, value, scale):
        ends, how = padding.cu_seqlens_B1, {"causal": causal, "window": window, "scale": scale, "dropout": dropout}
        return cpu_attention.attention(query, key, value, ends, **how, kernels=of_cpu), None
    assert window is None or not causal, "no family of ours has causal layers with a window"
    out = F.scaled_dot_product_attention(
        padding.pad(query), padding.pad(key), padding.pad(value),
        # Padding follows the tokens, so no causal query of a token ever sees it.
        attn_mask=None if causal else padding.mask(window), is_causal=causal, dropout_p=dropout, scale=scaling,
    )  # fmt: skip
    return padding.unpad(out), None


AttentionInterface.register(PACKED, packed_attention)


def use_packed_attention(model: transformers.PreTrainedModel) -> None:
    """Make a model of transformers run on packed batches."""
    model.config._attn_implementation = PACKED
    for module in model.modules():
        if getattr(module, "chunk_size_feed_forward", 0):
            module.chunk_size_feed_forward = 0  # which wants a row that it divides, for the same result in less memory


def packed_inputs(batch: PackedBatch | TaskBatch) -> dict[str, object]:
    """Keyword arguments with which an encoder of transformers runs on a packed batch; share them between models."""
    return {
        "input_ids": batch.input_ids_N.unsqueeze(0),
        "position_ids": batch.position_ids_N.unsqueeze(0),
        "padding": Padding(batch.cu_seqlens_B1, batch.longest, batch.position_ids_N),
    }
