"""A run in words: its title, how far it came, a paragraph of what was trained on what, and its key figures."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from distil.report.figures import COUNT, NOTHING, SHARE, duration, millions, of_tag, shown
from distil.report.panels import name_of
from distil.report.record import AFTER, Record

MOST_TILES = 6
# Rows of the plan, as distil.summary writes them.
_SHAPE = re.compile(r"(?P<layers>\d+) layers of width .*, (?P<size>[\d.,]+ M) parameters")
_MODEL = re.compile(rf"(?P<what>\S+) of (?P<start>layers [\d ]+|random weights), {_SHAPE.pattern}")
_FAMILIES = {
    "distilbert": "DistilBERT", "bert": "BERT", "roberta": "RoBERTa", "xlm-roberta": "XLM-RoBERTa", "albert": "ALBERT",
    "modernbert": "ModernBERT", "gpt2": "GPT-2",
}  # fmt: skip
_DIGEST = re.compile(r"[0-9a-f]{16,}")


@dataclass(frozen=True)
class Tile:
    """A figure, what it is, and a line of what it is to be held against."""

    value: str
    name: str
    against: str = ""


def title(record: Record) -> str:
    """The recipe, or whatever names the run."""
    names = (record.identity.get(key) for key in ("recipe", "task", "name"))
    return next((name for name in names if isinstance(name, str) and name), record.folder.resolve().name)


def finished(record: Record) -> bool:
    """Whether there are results, and none of steps after them."""
    measured = record.result("step")
    return record.results is not None and (measured is None or measured >= record.step)


def status(record: Record) -> str:
    """How far the run has come."""
    planned, step = record.planned, record.step
    if finished(record):
        return f"Finished at step {step:,}" if step else "Finished"
    of = f" of {planned:,}" if planned else ""
    if record.results is not None:
        return f"Unfinished: at step {step:,}{of}; results are of step {record.result('step'):,}"
    if step:
        return f"Unfinished: at step {step:,}{of}"
    return "Unfinished: it has not reported a step yet"


def when(record: Record) -> str:
    """The day and time of the last report; empty where nothing is known."""
    return time.strftime("%F %H:%M", time.localtime(record.sessions[-1][1])) if record.sessions else ""


def lead(record: Record) -> str:
    """What was trained on what, as far as the folder says it."""
    student = _MODEL.fullmatch(record.plan.get("student", ""))
    work = _work(record)
    if student is None:
        named = [f"{k} {v}" for k, v in record.identity.items() if isinstance(v, str) and not _DIGEST.fullmatch(v)]
        return " ".join([f"{'; '.join(named)}." if named else "", f"Trained{work}." if work else ""]).strip()
    family = _FAMILIES.get(student["what"], student["what"])
    article = "An" if family[0] in "AEIOUX" else "A"
    size = f"{article} {family} of {_count(student['layers'], 'layer')} and {student['size']} parameters"
    loss = record.plan.get("recipe", "").partition(": ")[2]
    return f"{size}, {_taught(record, student['start'])}{work}.{f' The loss: {loss}.' if loss else ''}"


def _taught(record: Record, start: str) -> str:
    """How the student began, and by whom it was taught."""
    by_teacher = "teacher" in record.plan
    row = record.plan.get("teacher" if by_teacher else "initial weights", "")
    shape = _SHAPE.search(row)
    of = record.mathematics("model").get("teacher")
    name = of.rpartition(":")[2] if isinstance(of, str) and of else row.partition(",")[0]
    if shape:
        name += f" ({_count(shape['layers'], 'layer')}, {shape['size']} parameters)"
    if not start.startswith("layers"):
        return f"begun with {start} and {f'taught by {name}' if by_teacher else 'trained on labels alone'}"
    layers = ", ".join(start.split()[1:])
    began = f"begun as layer{'s' if ',' in layers else ''} {layers} of {name}"
    return f"{began} and {'taught by it' if by_teacher else 'trained on labels alone'}"


def _work(record: Record) -> str:
    """For how many steps, on how many tokens of which text; empty before the first step."""
    if not record.step:
        return ""
    tokens, stores = record.last("data/tokens"), record.mathematics("data").get("store")
    on = f" on {tokens:,.0f} tokens" if tokens else ""
    if isinstance(stores, list) and stores:
        names = [str(store).removeprefix("sample:") for store in stores]
        on += f" of {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
    return f" for {_count(f'{record.step:,}', 'step')}{on}"


def _count(number: str, what: str) -> str:
    return f"{number} {what}{'' if number == '1' else 's'}"


def circumstances(record: Record) -> str:
    """Where, with what and how long it was trained."""
    parts = [*_place(record), *_versions(record)]
    if record.seconds >= 1:
        times = len(record.sessions)
        parts.append(f"{duration(record.seconds)}{f' in {times} sessions' if times > 1 else ''}")
    return " · ".join(parts)


def _place(record: Record) -> Iterator[str]:
    ds_config, device = record.settings("ds_config"), record.settings("versions").get("device")
    if isinstance(device, str):
        yield device
    config = ds_config.get("config")
    if isinstance(config, dict):
        ranks, zero = ds_config.get("ranks"), config.get("zero_optimization")
        yield f"{ranks} rank{'s' if ranks != 1 else ''}"
        yield next((p for p in ("fp16", "bf16") if _enabled(config.get(p))), "fp32")
        if isinstance(zero, dict) and "stage" in zero:
            yield f"ZeRO-{zero['stage']}"


def _enabled(block: Any) -> bool:
    return isinstance(block, dict) and block.get("enabled") is True


def _versions(record: Record) -> Iterator[str]:
    for name, value in record.settings("versions").items():
        text = str(value)
        if name == "git":  # a + at the end is of files that differed
            yield f"git {text[:10]}{'+' if text.endswith('+') else ''}"
        elif name != "device":
            yield f"{name} {text}"


def tiles(record: Record) -> list[Tile]:
    """The figures that a reader looks for first."""
    rows = record.rows()
    student = rows.get(AFTER)
    if student is not None:
        found = _of_results(student, rows.get("student before", {}), rows.get("teacher", {}))
    else:
        found = _of_top(record) or _of_curves(record)
    return [*found][:MOST_TILES]


def _of_results(student: dict[str, Any], before: dict[str, Any], teacher: dict[str, Any]) -> list[Tile]:
    """Of a distillation's table."""
    return [tile for tile in (
        _kept(student, before, teacher), _agreement(student, before, teacher), _size(student, teacher),
        _speed(student, teacher), _perplexity(student, before, teacher),
    ) if tile is not None]  # fmt: skip


def _number(row: dict[str, Any], name: str) -> float | None:
    value = row.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _before(row: dict[str, Any], name: str) -> str:
    """A share before training; empty where there is none."""
    value = _number(row, name)
    return "" if value is None else f"{shown(value, SHARE)} before training"


def _kept(student: dict[str, Any], before: dict[str, Any], teacher: dict[str, Any]) -> Tile | None:
    own, theirs = _number(student, "accuracy"), _number(teacher, "accuracy")
    if own is None:
        return None
    start = _before(before, "accuracy")
    if not theirs:
        return Tile(shown(own, SHARE), "held-out accuracy", start)
    against = f"{shown(own, SHARE)} against {shown(theirs, SHARE)}{f'; {start}' if start else ''}"
    return Tile(shown(own / theirs, SHARE), "of the teacher's held-out accuracy", against)


def _agreement(student: dict[str, Any], before: dict[str, Any], teacher: dict[str, Any]) -> Tile | None:
    own = _number(student, "agreement")
    if own is None or not teacher:
        return None
    return Tile(shown(own, SHARE), "agreement with the teacher", _before(before, "agreement"))


def _size(student: dict[str, Any], teacher: dict[str, Any]) -> Tile | None:
    own, theirs = _number(student, "parameters"), _number(teacher, "parameters")
    if own is None:
        return None
    against = f"{own / theirs:.0%} of the teacher's {millions(theirs)}" if theirs else ""
    return Tile(millions(own), "parameters", against)


def _speed(student: dict[str, Any], teacher: dict[str, Any]) -> Tile | None:
    own, theirs = _number(student, "milliseconds"), _number(teacher, "milliseconds")
    if not own:
        return None
    if not theirs:
        return Tile(f"{own:.1f} ms", "a sequence", "batch 1, fp32")
    return Tile(f"{theirs / own:.2f}×", "as fast as the teacher", f"{own:.1f} ms a sequence against {theirs:.1f}")


def _perplexity(student: dict[str, Any], before: dict[str, Any], teacher: dict[str, Any]) -> Tile | None:
    own = _number(student, "perplexity")
    if own is None:
        return None
    theirs, start = _number(teacher, "perplexity"), _number(before, "perplexity")
    against = [
        "" if theirs is None else f"teacher {theirs:,.1f}",
        "" if start is None else f"{start:,.1f} before training",
    ]
    return Tile(f"{own:,.1f}", "held-out perplexity", "; ".join(text for text in against if text))


def _of_top(record: Record) -> list[Tile]:
    """Of other results: the numbers at their top, by name."""
    found = [(name, record.result(name)) for name in record.results or {} if name not in ("step", "predicted", "seed")]
    return [Tile(shown(v, of_tag(name)), name_of(name).lower()) for name, v in found if v is not None]


def _of_curves(record: Record) -> Iterator[Tile]:
    """Of a run without results: where it stands."""
    planned = record.planned
    share = f"{record.step / planned:.0%} of {planned:,}" if planned else ""
    if record.step:
        yield Tile(shown(record.step, COUNT), "steps", share)
    for tag, curve in record.curves.items():
        part, _, name = tag.partition("/")
        if tag == "loss/total" or (part in ("heldout", "validation") and not name.startswith("teacher_")):
            step = f"at step {curve.steps[-1]:,}"
            teacher = record.last(f"{part}/teacher_{name.rpartition('_')[2]}")
            kind = of_tag(tag)
            against = f"{step}; teacher {shown(teacher, kind)}" if teacher is not None else step
            value = record.last(tag)
            yield Tile(shown(value, kind) if value is not None else NOTHING, name_of(tag).lower(), against)
