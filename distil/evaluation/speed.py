"""How long a model takes for one sequence, as the paper's Table 3 asks: batch 1."""

from __future__ import annotations

import statistics
import time

import torch
import transformers

from distil.models.families import family_of

WARM_UP = 3
SEQUENCES = 20
TOKENS = 128


def milliseconds_a_sequence(model: transformers.PreTrainedModel) -> float:
    """Median milliseconds for one sequence of 128 tokens at batch 1, logits included, with stock attention."""
    model.set_attn_implementation("sdpa")
    device = next(model.parameters()).device
    tokens = min(TOKENS, family_of(model.config).longest(model.config))
    ids = torch.randint(model.config.vocab_size, (1, tokens), generator=torch.Generator().manual_seed(0)).to(device)
    seconds = []
    with torch.no_grad():
        for _ in range(WARM_UP + SEQUENCES):
            start = time.perf_counter()
            model(ids).logits[0, 0, 0].item()  # waits for the device
            seconds.append(time.perf_counter() - start)
    return 1000 * statistics.median(seconds[WARM_UP:])
