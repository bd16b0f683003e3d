"""What every variant of a step is measured on: BERT-base and DistilBERT, the same text, the same budget."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from distil.config import Recipe
from distil.folder import building, prepared
from distil.job import Job, settle
from distil.placement import place
from distil.prepare import prepare_stores, sample_encoder

RECIPE, STORE = "distilbert-base-uncased", "sample:wiki-summaries-en"
LONGEST, WARMING = 10, 2  # in the second step memory of the optimiser is still new
DS_CONFIG = Path(__file__).parents[1] / "ds_config" / "zero1.json"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that say on what is measured."""
    parser.add_argument("--max_length", type=int, default=128, help="tokens of the longest sequence")
    parser.add_argument("--micro_batch_size", type=int, default=8, help="sequences of that length in a micro-batch")
    parser.add_argument("--accumulation", type=int, default=8, help="micro-batches of an optimiser step")
    parser.add_argument("--steps", type=int, default=2, help="optimiser steps that are timed, after two that are not")
    parser.add_argument("--store", default=STORE, help="prefix of a store that BERT's tokenizer has made")
    parser.add_argument("--profile", action="store_true", help="tell what takes longest, too")
    parser.add_argument("--teacher", help="a folder instead of BERT-base with random weights, which take as long")


def teacher_of(options: argparse.Namespace) -> str:
    """Folder of the teacher; one with random weights of BERT-base's shape is made once."""
    if options.teacher:
        return options.teacher
    folder = prepared() / "bert-base-random"
    if not folder.is_dir():
        torch.manual_seed(0)
        with building(folder) as draft:
            transformers.BertForMaskedLM(transformers.BertConfig()).save_pretrained(draft)
            transformers.AutoTokenizer.from_pretrained(sample_encoder("minilm-l6")).save_pretrained(draft)
    return str(folder)


def job_of(options: argparse.Namespace, precision: str, device: torch.device, **overrides: object) -> Job:
    """The published recipe on that text, placed on one rank by ZeRO-1."""
    teacher = teacher_of(options)
    sizes = {"max_length": options.max_length, "micro_batch_size": options.micro_batch_size}
    sizes["batch_size"] = options.micro_batch_size * options.accumulation
    config = transformers.AutoConfig.from_pretrained(teacher)
    numbers = {"teacher": teacher, "student_depth": config.num_hidden_layers // 2, "store": (options.store,)}
    numbers |= sizes | overrides
    recipe = Recipe.load(RECIPE, numbers)
    ds_config, compiled = getattr(options, "ds_config", DS_CONFIG), getattr(options, "compiled", False)
    placement = place(ds_config, recipe, 1, device.type, (precision,), precision, compiled)
    prepare_stores(recipe, teacher)
    return settle(recipe, placement, teacher, None)


def timed(
    options: argparse.Namespace, step: Callable[[], float], waited: Callable[[], float], device: torch.device
) -> dict[str, Any]:  # fmt: skip
    """Tokens that ``step`` returns, seconds and those of ``waited`` over the timed steps; if asked, what took longest.

    Steps that warm up are not timed, and what takes longest is asked of one more.
    """
    for _ in range(WARMING):
        step()
    before, tokens = waited(), 0.0
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    began = time.perf_counter()
    for _ in range(options.steps):
        tokens += step()
    wait()
    seconds = time.perf_counter() - began
    result: dict[str, Any] = {"tokens": tokens, "seconds": seconds, "waited": waited() - before}
    if options.profile:
        with torch.profiler.profile() as profile:
            step()
            wait()
        result["longest"] = longest(profile, device)
    return result


def longest(profile: torch.profiler.profile, device: torch.device) -> list[tuple[str, float]]:
    """Ten operations, or kernels on a GPU, that took longest themselves, with their share of all."""
    own = f"self_{'device' if device.type == 'cuda' else 'cpu'}_time_total"
    times = {event.key: getattr(event, own) for event in profile.key_averages()}
    total = sum(times.values())
    return [(name[:60], times[name] / total) for name in sorted(times, key=times.get, reverse=True)[:LONGEST]]
