"""The trained student as a folder that transformers loads: config, safetensors, tokenizer, model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import transformers
from torch import Tensor

from distil.folder import building
from distil.models.families import FAMILIES


def export_student(
    folder: Path, family: str, config: transformers.PreTrainedConfig, parameters: Mapping[str, Tensor],
    tokenizer: transformers.PreTrainedTokenizerBase, card: str,
) -> None:  # fmt: skip
    """Write fp32 ``parameters`` (by their names in the student) as a Hugging Face folder, whole or not at all.

    An earlier export in ``folder`` is replaced. Tied tensors are stored once and tied again on loading.
    """
    config = type(config).from_dict({**config.to_dict(), "dtype": "float32"})
    config._attn_implementation = "sdpa"
    model = FAMILIES[family].model_class(config)
    missing, unexpected = model.load_state_dict(dict(parameters), strict=False)
    tied = set(model.all_tied_weights_keys)
    assert not unexpected and set(missing) <= tied, f"student and export differ: {missing} {unexpected}"
    model.tie_weights()
    with building(folder, replace=True) as draft:
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        (draft / "README.md").write_text(card, encoding="utf-8")


def model_card(
    recipe: str, family: str, teacher: str, texts: str, steps: int, tokens: int, figures: str, mathematics: str
) -> str:
    """A model card: what was trained on what, how, and the figures measured at the end (a Markdown table)."""
    return f"""---
library_name: transformers
pipeline_tag: fill-mask
tags: [distillation, {family}]
---

# {family} distilled by the recipe {recipe}

- teacher: `{teacher}`
- text: `{texts}`
- training: {steps:,} optimiser steps, {tokens:,} tokens

```python
from transformers import AutoModelForMaskedLM, AutoTokenizer

model = AutoModelForMaskedLM.from_pretrained("FOLDER")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```

## Held-out figures

{figures}

## Recipe

```json
{mathematics}
```
"""
