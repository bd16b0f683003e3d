"""``evaluate.py speed``: sizes, seconds, latencies and throughput of a student beside its teacher, on a CPU."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from distil.commands import models
from distil.errors import ConfigError, DataError
from distil.folder import write_whole

if TYPE_CHECKING:
    from distil.evaluation.examples import Evaluation
    from distil.evaluation.loaded import Loaded
    from distil.evaluation.speed_table import Speeds
    from distil.tasks.task import Task

HELP = "sizes, seconds for a whole set at batch 1, latencies, throughput; the same in int8 and as ONNX"
FORMS = ("fp32", "int8", "onnx", "onnx-int8")


def add(parser: argparse.ArgumentParser) -> None:
    """The options."""
    models.add(parser)
    what = parser.add_argument_group("what is timed: without --task and --text random ids, 31 a sequence on average")
    what.add_argument("--task", metavar="T", help="the validation split of a task that both models are fitted to")
    what.add_argument("--data", metavar="DIR", help="where the task's data lie (default: the hub)")
    what.add_argument("--text", metavar="FILE", help="a text in each line, for language models")
    what.add_argument("--sequences", metavar="N", type=int, help="only so many (default: all; of random ids 1,500)")
    how = parser.add_argument_group("how")
    how.add_argument("--threads", metavar="N", type=int, help="default: all cores that this process may use")
    how.add_argument("--forms", nargs="+", choices=FORMS, metavar="FORM", help=f"of {', '.join(FORMS)} (default: all)")
    how.add_argument(
        "--batches", nargs="*", type=int, metavar="N", default=[1, 2, 4, 8, 16, 32, 64],
        help="sizes of batches for the throughput; none: without",
    )  # fmt: skip


def check(chosen: argparse.Namespace) -> None:
    """Raise ConfigError and DataError for what needs no library to be refused."""
    models.check(chosen)
    chosen.threads = chosen.threads if chosen.threads is not None else len(os.sched_getaffinity(0))
    for name, values in (("--threads", [chosen.threads]), ("--batches", chosen.batches)):
        if min(values, default=1) < 1:
            raise ConfigError(f"{name} has {min(values)}; it must be 1 or more")
    if chosen.sequences is not None and chosen.sequences < 1:
        raise ConfigError(f"--sequences is {chosen.sequences}; it must be 1 or more")
    if chosen.task and chosen.text:
        raise ConfigError("--task and --text are two sets; give one of them")
    if chosen.data and not chosen.task:
        raise ConfigError("--data is where the data of a task lie; give --task, too")
    if chosen.text and not Path(chosen.text).is_file():
        raise DataError(f"no file {chosen.text}; --text wants one with a text in each line")


def run(chosen: argparse.Namespace, command: str) -> None:
    """Measure, print, and write what was asked for. Raises ConfigError, DataError and RunError."""
    check(chosen)
    from distil.tasks.catalogue import find

    task = find(chosen.task) if chosen.task else None
    import torch

    from distil.evaluation.compressed import available, forms_of
    from distil.evaluation.examples import inputs_of
    from distil.evaluation.loaded import Loaded
    from distil.evaluation.speed_table import measure

    torch.set_num_threads(chosen.threads)
    names, note = available(chosen.forms)
    loaded = [Loaded.of(*name, task) for name in models.named(chosen)]
    if len({model.kind for model in loaded}) > 1:
        raise ConfigError(
            " and ".join(f"{model.name} is a {type(model.model).__name__}" for model in loaded)
            + ": give two models of one kind"
        )
    entries = []
    for model, of in zip(loaded, evaluations(chosen, task, loaded), strict=True):
        print(f"{model.title}: {model.name}", flush=True)
        entries.append((model, of, forms_of(model, names, inputs_of(of.examples[:1], model.pad_id), chosen.threads)))
    speeds = measure(entries, sorted(set(chosen.batches)), chosen.threads, [note] if note else [])
    print(f"\n{speeds.text()}\n")
    if chosen.out:
        _leave(speeds, command, models.made(chosen.out))


def _leave(speeds: Speeds, command: str, out: Path) -> None:
    """All figures, and the tables for a report; one that was not measured this time goes. Raises DataError."""
    from distil import exhibit

    figures = exhibit.figures_file(out, "speed")
    try:
        figures.parent.mkdir(parents=True, exist_ok=True)
        write_whole(figures, json.dumps({**speeds.values(), "command": command}, indent=2) + "\n")
    except OSError as error:
        raise DataError(f"{figures} cannot be written: {error.strerror}") from error
    print(f"all figures: {figures}")
    for name, made in speeds.exhibits(command).items():
        if made is None:
            exhibit.remove(out, name)
        else:
            print(f"for the report: {made.write(out, name)}")


def evaluations(chosen: argparse.Namespace, task: Task | None, loaded: list[Loaded]) -> list[Evaluation]:
    """The set for each model, as its tokenizer has it. Raises DataError and ConfigError."""
    from distil.data.tokenizer import load_tokenizer
    from distil.evaluation import examples
    from distil.tasks.reading import read

    longest = min(model.longest for model in loaded)
    if not (task or chosen.text):
        vocabulary = min(model.model.config.vocab_size for model in loaded)
        return [examples.synthetic(vocabulary, longest, chosen.sequences)] * len(loaded)
    split = read(task, task.validations[0], chosen.data, limit=chosen.sequences) if task else None
    found = []
    for model in loaded:
        tokenizer = load_tokenizer(model.name)
        if task:
            of = examples.of_task(task, split, tokenizer, longest, model.token_types)
        else:
            how = (longest, model.token_types, chosen.sequences)
            of = examples.of_text(chosen.text, tokenizer, model.kind, *how)
        if max(max(example.ids) for example in of.examples) >= model.model.config.vocab_size:
            raise DataError(f"model {model.name} lacks ids that its tokenizer gives; put the tokenizer there it had")
        found.append(of)
    return found
