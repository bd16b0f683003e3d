"""The trained student as a folder that transformers loads: config, safetensors, tokenizer, model card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import transformers
from torch import Tensor

from distil.config import Recipe
from distil.folder import building
from distil.models.family import Family


def export_student(
    folder: Path, family: Family, config: transformers.PreTrainedConfig, parameters: Mapping[str, Tensor],
    tokenizer: transformers.PreTrainedTokenizerBase,
) -> None:  # fmt: skip
    """Write fp32 ``parameters`` (by their names in the student) as a Hugging Face folder, whole or not at all.

    An earlier export in ``folder`` is replaced. Of tied tensors one name is enough; they are stored once, too.
    """
    config = type(config).from_dict({**config.to_dict(), "dtype": "float32"})
    config._attn_implementation = "sdpa"
    model = family.model_class(config)
    missing, unexpected = model.load_state_dict(dict(parameters), strict=False)
    held = {id(model.get_parameter(name)) for name in parameters if name not in unexpected}
    untold = [name for name in missing if id(model.get_parameter(name)) not in held]
    assert not unexpected and not untold, f"student and export differ: {untold} {unexpected}"
    with building(folder, replace=True) as draft:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)


def write_card(folder: Path, recipe: Recipe, family: Family, steps: int, tokens: int, figures: str) -> None:
    """Put the model card beside the weights: what was trained on what, and a Markdown table of figures."""
    taught = recipe.loss.needs_teacher
    card = CARD.format(
        recipe=recipe.name, family=family.name, teacher=recipe.model.teacher,
        tag="distillation" if taught else "pretraining", made="distilled" if taught else "trained",
        source="teacher" if taught else "initial weights",
        task="text-generation" if family.causal else "fill-mask", loader=_loader(family),
        text=" and ".join(recipe.data.store),
        steps=steps, tokens=tokens, figures=figures, mathematics=json.dumps(recipe.mathematics(), indent=2),
    )  # fmt: skip
    draft = folder / ".README.md"
    draft.write_text(card, encoding="utf-8")
    draft.rename(folder / "README.md")


def _loader(family: Family) -> str:
    return "AutoModelForCausalLM" if family.causal else "AutoModelForMaskedLM"


CARD = """---
library_name: transformers
pipeline_tag: {task}
tags: [{tag}, {family}]
---

# {family} {made} by the recipe {recipe}

- {source}: `{teacher}`
- text: `{text}`
- training: {steps:,} optimiser steps, {tokens:,} tokens

Load it with `{loader}.from_pretrained` and `AutoTokenizer.from_pretrained`.

## Held-out figures

{figures}

## Recipe

```json
{mathematics}
```
"""
