"""The model card of a fine-tuned model."""

from __future__ import annotations

import json
from pathlib import Path

from distil.finetuning.job import FineTuningJob
from distil.finetuning.results import TaskResults
from distil.models.family import Family
from distil.tasks.task import SPANS

CARD = """---
library_name: transformers
pipeline_tag: {task}
tags: [{tags}]
---

# {family} fine-tuned for {name}

- started from: `{start}`{teacher}
- trained on: {examples:,} examples, {steps:,} optimiser steps
- judged on: {judged}

Load it with `{loader}.from_pretrained` and `AutoTokenizer.from_pretrained`.

## Figures

{figures}

## Numbers

```json
{numbers}
```
"""


def write_card(folder: Path, job: FineTuningJob, family: Family, results: TaskResults) -> None:
    """Put the model card beside the weights."""
    start, spans = job.numbers.start, job.task.kind == SPANS
    taught = job.numbers.loss.needs_teacher
    card = CARD.format(
        task="question-answering" if spans else "text-classification",
        tags=", ".join(["fine-tuning", *(["distillation"] if taught else []), family.name]),
        family=family.name, name=job.task.name, start=start.model or f"layers of {start.teacher}",
        teacher=f"\n- teacher: `{start.teacher}`" if taught else "",
        examples=results.train_examples, steps=results.step,
        judged=", ".join(f"{count:,} examples of {split}" for split, count in results.judged.items()),
        loader="AutoModelForQuestionAnswering" if spans else "AutoModelForSequenceClassification",
        figures=results.table(), numbers=json.dumps(job.numbers.numbers(), indent=2),
    )  # fmt: skip
    draft = folder / ".README.md"
    draft.write_text(card, encoding="utf-8")
    draft.rename(folder / "README.md")
