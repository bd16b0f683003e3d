"""Small models and outlines of jobs, without a file of either."""

from __future__ import annotations

from pathlib import Path

from distil.config import Recipe
from distil.placement import place
from distil.planning.outline import Outline, outline

ROOT = Path(__file__).parents[2]
SMALL = dict(
    vocab_size=97, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, intermediate_size=256,
    max_position_embeddings=80,
)  # fmt: skip
_SPECIAL = dict(pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
CONFIGS = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta"), SMALL),
    "distilbert": dict(vocab_size=97, dim=64, n_layers=4, n_heads=4, hidden_dim=256, max_position_embeddings=80),
    "albert": SMALL | dict(embedding_size=16),
    "modernbert": SMALL | dict(local_attention=300) | _SPECIAL,
    "gpt2": dict(vocab_size=97, n_embd=64, n_layer=4, n_head=4, n_positions=80, bos_token_id=0, eos_token_id=0),
}


def outlined(ds_config: str = "zero1", ranks: int = 4, precision: str = "auto", **changes: object) -> Outline:
    """The published recipe, of which no model and no text is here, on so many GPUs without bf16."""
    recipe = Recipe.load("distilbert-base-uncased", changes)
    path = ROOT / "ds_config" / f"{ds_config}.json"
    return outline(recipe, place(path, recipe, ranks, "cuda", ("fp16", "fp32"), precision), 1e9)
