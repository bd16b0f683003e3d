"""SQuAD's own files: paragraphs with questions, as JSON (``train-v1.1.json``, ``dev-v2.0.json``)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distil.errors import DataError, one_line
from distil.tasks.columns import Columns, readable
from distil.tasks.task import Answer, Task

SHIFT = 2  # characters by which a start may be off the answer


def read_squad(path: Path) -> Columns | None:
    """Columns id, question, context, answers; none where the JSON is of another kind. Raises DataError if damaged."""
    try:
        with readable(path):
            text = path.read_text(encoding="utf-8")
        content = json.loads(text)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: is no JSON ({one_line(error)[:200]}); fetch it anew") from error
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        return None
    try:
        rows = list(_questions(content["data"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: not as SQuAD's files are ({type(error).__name__}: {one_line(error)})") from error
    names = ("id", "question", "context", "answers")
    return Columns(str(path), {name: [row[i] for row in rows] for i, name in enumerate(names)}, len(rows))


def _questions(articles: list[Any]) -> Iterator[tuple[str, str, str, dict[str, list[Any]]]]:
    for article in articles:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                # Of a question without answer 2.0 has plausible ones, which are none.
                right = [] if question.get("is_impossible", False) else question["answers"]
                answers = {
                    "text": [one["text"] for one in right],
                    "answer_start": [one["answer_start"] for one in right],
                }
                yield question["id"], question["question"], paragraph["context"], answers


def squad_file(folder: Path, split: str, version: str) -> Path | None:
    """The file of a split in SQuAD's folder, version being v1.1 or v2.0; none where there is none."""
    word = {"validation": "dev"}.get(split, split)
    return next((p for p in (folder / f"{word}-{version}.json",) if p.is_file()), None)


def answers_of(task: Task, columns: Columns, contexts: Sequence[str]) -> tuple[Answer, ...]:
    """Answers out of rows of {"text": [...], "answer_start": [...]}, each where it stands in its context.

    Raises DataError for one that does not, up to SHIFT characters off, and for none where the task has none such.
    """
    found = []
    for row, (value, context) in enumerate(zip(columns.column(task.label), contexts, strict=True)):
        texts, starts = (value.get("text"), value.get("answer_start")) if isinstance(value, dict) else (None, None)
        if not (_all(str, texts) and _all(int, starts) and len(texts) == len(starts)):
            raise DataError(f"{columns.place(row)}: {task.label} has no text and answer_start, lists of one length")
        if not texts and not task.unanswerable:
            raise DataError(f"{columns.place(row)}: no answer, and every question of {task.name} has one; try squad_v2")
        places = [_start_of(text, start, context) for text, start in zip(texts, starts, strict=True)]
        if None in places:
            wrong = texts[places.index(None)]
            raise DataError(f"{columns.place(row)}: its answer {wrong[:80]!r} is not where it says in the context")
        found.append(Answer(tuple(texts), tuple(places)))
    return tuple(found)


def _all(kind: type, values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, kind) for value in values)


def _start_of(text: str, start: int, context: str) -> int | None:
    """Where the answer stands in its context, as close to ``start`` as may be; none where it does not."""
    for shift in sorted(range(-SHIFT, SHIFT + 1), key=abs):
        if start + shift >= 0 and context.startswith(text, start + shift):
            return start + shift
    return None
