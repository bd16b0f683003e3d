"""The published training step, written anew from what is known of it, as somebody would run it today.

Batches grouped by length into bins of four tokens and padded to their longest; masks drawn in the loop; logits
everywhere, selected by a mask; statistics in the type that autocast gives; means of means; several values fetched from
the device each micro-batch; stock models, stock AdamW, no worker beside the loop. One thing is better than it was: a
batch holds as many sequences as fill our budget of tokens, not the same number of any length.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
import transformers
from step_setting import job_of, timed
from torch import Tensor

from distil.data.batch import PackedBatch
from distil.kernels import IGNORED
from distil.schedule import learning_rate
from distil.tables import Loss, Optimizer

BIN = 4  # tokens by which lengths are grouped


class PaddedBatch(NamedTuple):
    """B sequences in rows of L places: ids, 1 where there is a token, and labels, -100 where nothing is predicted."""

    ids_BL: Tensor
    attention_BL: Tensor
    labels_BL: Tensor

    @classmethod
    def of(cls, batch: PackedBatch, pad_id: int) -> Self:
        """The sequences of a packed batch, padded."""
        lengths_B = batch.cu_seqlens_B1.diff().long()
        attention_BL = torch.arange(batch.longest) < lengths_B[:, None]
        ids_BL = torch.full(attention_BL.shape, pad_id)
        labels_BL = torch.full(attention_BL.shape, IGNORED)
        ids_BL[attention_BL], labels_BL[attention_BL] = batch.input_ids_N, batch.labels_N
        return cls(ids_BL, attention_BL.long(), labels_BL)


class Published:
    """Stock student and teacher, trained by the published step; ``dtype`` is autocast's, None without."""

    def __init__(
        self, student: torch.nn.Module, teacher: torch.nn.Module, loss: Loss, optimizer: Optimizer, total_steps: int,
        dtype: torch.dtype | None, device: torch.device,
    ) -> None:  # fmt: skip
        self._student, self._teacher = student.to(device).train(), teacher.to(device).eval()
        self._loss, self._numbers, self._total, self._dtype, self._device = loss, optimizer, total_steps, dtype, device
        self._adam = torch.optim.AdamW(
            student.parameters(), lr=optimizer.lr, betas=(optimizer.adam_beta1, optimizer.adam_beta2),
            eps=optimizer.adam_eps, weight_decay=optimizer.weight_decay,
        )  # fmt: skip
        scales = dtype == torch.float16
        self._scaler = torch.amp.GradScaler(device.type, enabled=scales)
        self._step = 0

    def step(self, batches: list[PaddedBatch]) -> float:
        """One optimiser step over the micro-batches of a global batch; returns the mean of their losses."""
        lr = learning_rate(self._step, self._total, self._numbers.lr, self._numbers.warmup_fraction)
        for group in self._adam.param_groups:
            group["lr"] = lr
        total = 0.0
        for batch in batches:
            loss, terms = self.loss(PaddedBatch(*(tensor.to(self._device) for tensor in batch)))
            if (loss != loss).data.any():
                raise RuntimeError("the loss is no number")
            total += loss.item()
            _ = [term.item() for term in terms]  # each for its running mean
            self._scaler.scale(loss / len(batches)).backward()
        self._scaler.unscale_(self._adam)
        torch.nn.utils.clip_grad_norm_(self._student.parameters(), self._numbers.max_grad_norm)
        self._scaler.step(self._adam)
        self._scaler.update()
        self._adam.zero_grad()
        self._step += 1
        return total / len(batches)

    def loss(self, batch: PaddedBatch) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The weighted loss of a micro-batch and its terms, means over the micro-batch's own rows."""
        with torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not None):
            inputs = {"input_ids": batch.ids_BL, "attention_mask": batch.attention_BL, "output_hidden_states": True}
            student = self._student(**inputs)
            with torch.no_grad():
                teacher = self._teacher(**inputs)
            mask_BL1 = batch.attention_BL.bool().unsqueeze(-1)

            def chosen(tensor_BLX: Tensor) -> Tensor:
                return tensor_BLX.masked_select(mask_BL1.expand_as(tensor_BLX)).view(-1, tensor_BLX.shape[-1])

            t, loss = self._loss.temperature, self._loss
            log_q, p = (chosen(student.logits) / t).log_softmax(-1), (chosen(teacher.logits) / t).softmax(-1)
            ce = F.kl_div(log_q, p, reduction="batchmean") * t**2
            mlm = F.cross_entropy(student.logits.flatten(0, 1), batch.labels_BL.flatten(), ignore_index=IGNORED)
            ours, theirs = chosen(student.hidden_states[-1]), chosen(teacher.hidden_states[-1])
            cos = F.cosine_embedding_loss(ours, theirs, ours.new_ones(len(ours)))
            return loss.alpha_ce * ce + loss.alpha_mlm * mlm + loss.alpha_cos * cos, (ce, mlm, cos)


class Loader:
    """Batches of a store as the published loop makes them, one after the other, in the loop's own thread."""

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        self.job = job_of(options, "fp32", device)
        self._store, self._budget = self.job.mixture.stores[0], self.job.recipe.data.budget_tokens
        self._rng = np.random.default_rng(0)
        masking, meta = self.job.recipe.masking, self._store.meta
        weights_V = np.maximum(self._store.token_counts, 1).astype(float) ** -masking.mlm_smoothing
        weights_V[list(meta.special_ids.values())] = 0
        self._weights_V = torch.from_numpy(weights_V).float()
        self._masking, self._special = masking, meta.special_ids
        self.waited = 0.0

    def batches(self) -> Iterator[PaddedBatch]:
        """Endless; batches come in random order, each of one bin of lengths."""
        bins = np.asarray(self._store.sizes) // BIN
        while True:
            order = self._rng.permutation(len(bins))
            groups = self._filled(order[np.argsort(bins[order], kind="stable")])
            for number in self._rng.permutation(len(groups)):
                began = time.perf_counter()
                batch = self._masked(*self._store.gather(groups[number]))
                self.waited += time.perf_counter() - began
                yield batch

    def _filled(self, order: np.ndarray) -> list[np.ndarray]:
        """Runs of sequences, as many as fit the budget once they are padded to the longest bin, which comes last."""
        groups, first = [], 0
        for end in range(1, len(order) + 1):
            if end == len(order) or (end + 1 - first) * (self._store.sizes[order[end]] // BIN + 1) * BIN > self._budget:
                groups.append(order[first:end])
                first = end
        return groups

    def _masked(self, ids_N: np.ndarray, lengths_B: np.ndarray) -> PaddedBatch:
        rows = [torch.from_numpy(row.astype(np.int64)) for row in np.split(ids_N, np.cumsum(lengths_B)[:-1])]
        ids_BL = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self._special["pad"])
        attention_BL = (torch.arange(ids_BL.shape[1]) < torch.from_numpy(lengths_B)[:, None]).long()
        taken = torch.multinomial(
            self._weights_V[ids_BL.flatten()], round(self._masking.mlm_fraction * len(ids_N)), replacement=False
        )  # fmt: skip
        labels_N = torch.full((ids_BL.numel(),), IGNORED)
        labels_N[taken] = ids_BL.flatten()[taken]
        how = torch.rand(len(taken))
        inputs_N = ids_BL.flatten().clone()
        random = torch.randint(len(self._weights_V), (len(taken),))
        inputs_N[taken] = torch.where(
            how < self._masking.mask_share + self._masking.keep_share, inputs_N[taken], random
        )
        inputs_N[taken[how < self._masking.mask_share]] = self._special["mask"]
        return PaddedBatch(inputs_N.view_as(ids_BL), attention_BL, labels_N.view_as(ids_BL))


def stock_models(teacher: str, dropout: float, depth: int) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A student with random weights and the teacher, as transformers makes them by default."""
    model = transformers.AutoModelForMaskedLM.from_pretrained(teacher)
    config, width = (
        model.config,
        {"dim": "hidden_size", "hidden_dim": "intermediate_size", "n_heads": "num_attention_heads"},
    )
    student = transformers.DistilBertConfig(
        vocab_size=config.vocab_size, max_position_embeddings=config.max_position_embeddings, n_layers=depth,
        dropout=dropout, attention_dropout=dropout, **{own: getattr(config, theirs) for own, theirs in width.items()},
    )  # fmt: skip
    return transformers.DistilBertForMaskedLM(student), model


def measure(options: argparse.Namespace, device: torch.device, dtype: torch.dtype | None) -> dict[str, Any]:
    """Real tokens and seconds of the published step, and seconds in which batches were made."""
    loader = Loader(options, device)
    recipe = loader.job.recipe
    student, teacher = stock_models(loader.job.teacher, recipe.model.dropout, len(loader.job.shape.layers))
    published = Published(student, teacher, recipe.loss, recipe.optimizer, 10**6, dtype, device)
    batches = loader.batches()

    def step() -> int:
        of_step = [next(batches) for _ in range(options.accumulation)]
        published.step(of_step)
        return sum(int(batch.attention_BL.sum()) for batch in of_step)

    return timed(options, step, lambda: loader.waited, device)
