"""A run in words: its title, how far it came, and what was trained on what, where and with what."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

from distil.report.figures import duration
from distil.report.record import Record

# Rows of the plan, as distil.summary writes them.
_SHAPE = re.compile(r"(?P<layers>\d+) layers of width .*, (?P<size>[\d.,]+ M) parameters")
_STUDENT = re.compile(rf"(?P<what>\S+) of (?P<start>layers [\d ]+|random weights), {_SHAPE.pattern}")
_MODEL = re.compile(rf"(?P<what>.+?), {_SHAPE.pattern}(?:; (?P<note>.+))?")
_MORE = {"The loss": "loss", "Judged on": "judged on"}
_FAMILIES = {
    "distilbert": "DistilBERT", "bert": "BERT", "roberta": "RoBERTa", "xlm-roberta": "XLM-RoBERTa", "albert": "ALBERT",
    "modernbert": "ModernBERT", "gpt2": "GPT-2",
}  # fmt: skip
_DIGEST = re.compile(r"[0-9a-f]{16,}")


def title(record: Record) -> str:
    """The recipe or the task, or else the folder's name."""
    name = record.task or record.identity.get("recipe")
    return name if isinstance(name, str) and name else record.folder.resolve().name


def place(record: Record) -> str:
    """The folder by the end of its path, which tells apart runs of one recipe or task."""
    return "/".join(record.folder.resolve().parts[-2:]).lstrip("/")


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
    if record.task is not None:
        return _fine_tuned(record)
    student = _STUDENT.fullmatch(record.plan.get("student", ""))
    work = _work(record)
    if student is None:
        named = [f"{k} {v}" for k, v in record.identity.items() if isinstance(v, str) and not _DIGEST.fullmatch(v)]
        return " ".join([f"{'; '.join(named)}." if named else "", f"Trained{work}." if work else ""]).strip()
    size = f"{_a(student['what'])} of {_count(student['layers'], 'layer')} and {student['size']} parameters"
    loss = record.plan.get("recipe", "").partition(": ")[2]
    return f"{size}, {_taught(record, student['start'])}{work}.{f' The loss: {loss}.' if loss else ''}"


def _fine_tuned(record: Record) -> str:
    """As ``lead``, of a fine-tuning."""
    plan, work = record.plan, _work(record)
    model, teacher = (_MODEL.fullmatch(plan.get(name, "")) for name in ("model", "teacher"))
    if model is None:
        return f"Fine-tuned for {record.task}{work}."
    name = _a(model["what"]) if model["what"] in _FAMILIES else model["what"]
    note = f"; {model['note']}" if model["note"] else ""
    fitted = (
        f"{name} ({_count(model['layers'], 'layer')}, {model['size']} parameters{note}), fitted to {record.task}{work}"
    )
    if teacher is not None:
        shape = f"{_count(teacher['layers'], 'layer')}, {teacher['size']} parameters"
        fitted += f", beside its teacher {teacher['what']} ({shape})"
    loss, judged = (f" {what}: {plan[row]}." if row in plan else "" for what, row in _MORE.items())
    return f"{fitted}.{loss}{judged}"


def _a(family: str) -> str:
    """A family with its article, spelt as its authors do."""
    name = _FAMILIES.get(family, family)
    return f"{'An' if name[0] in 'AEIOUX' else 'A'} {name}"


def _taught(record: Record, start: str) -> str:
    """How the student began, and by whom it was taught."""
    by_teacher = "teacher" in record.plan
    row = record.plan.get("teacher" if by_teacher else "initial weights", "")
    shape = _SHAPE.search(row)
    of = record.table("model").get("teacher")
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
    tokens, stores = record.last("data/tokens"), record.table("data").get("store")
    on = f" on {tokens:,.0f} tokens" if tokens else ""
    if isinstance(stores, list) and stores:
        names = [str(store).removeprefix("sample:") for store in stores]
        on += f" of {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
    return f" for {_count(f'{record.step:,}', 'step')}{on}"


def _count(number: str, what: str) -> str:
    return f"{number} {what}{'' if number == '1' else 's'}"


def circumstances(record: Record) -> str:
    """Where, with what and how long it was trained."""
    parts = [place(record), *_placement(record), *_versions(record)]
    if record.seconds >= 1:
        times = len(record.sessions)
        parts.append(f"{duration(record.seconds)}{f' in {times} sessions' if times > 1 else ''}")
    return " · ".join(parts)


def _placement(record: Record) -> Iterator[str]:
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
