"""Whether a run in a suite's folder is what its name says, by its own numbers, models and text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distil.data.samples import PREFIX
from distil.data.tokenizer import fingerprint, load_tokenizer
from distil.errors import DataError
from distil.finetuning.suite_folder import DATA, Member
from distil.finetuning.suite_options import STUDENT, TEACHER, Suite
from distil.identity import difference
from distil.models.loading import load_config, weights_fingerprint
from distil.rundir import MODEL, RUN

_TEXT, _TOKENIZER, _NUMBERS, _WEIGHTS = "text", "tokenizer", "fine-tuning", "weights"  # in a run's identity
_SHARED = ("data", "optimizer")  # of its numbers: what all runs of a suite have alike, but for the seed


class Identities:
    """What makes runs the same run, as far as it is known without reading a task's text; files are hashed once."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite
        self._hashed: dict[Any, str] = {}
        self._read: dict[tuple[str, str], tuple[Member, Any]] = {}

    def apart(self, one: Member) -> str:
        """How the run in a member's folder differs from what the member is; empty where it does not, or is not there.

        A run that is asked for is held against all that is asked; any other against what all runs of a suite share,
        since its weights of the loss, say, are its own. Of runs of a task that have one tokenizer the text must be the
        same: that of the first one that this is asked about. Raises DataError where something cannot be read.
        """
        path = one.folder / RUN
        if not path.exists():
            return ""
        try:
            then = json.loads(path.read_text(encoding="utf-8"))
            tables = {name: dict(then[name]) for name in (_NUMBERS, _WEIGHTS, _TEXT)}
            tokenizer = str(then[_TOKENIZER])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read ({error}); is the folder a run of ours?") from error
        now = {_NUMBERS: self._numbers(one), _WEIGHTS: self._weights(one, tables[_WEIGHTS])}
        there = {name: {key: tables[name][key] for key in now[name] if key in tables[name]} for name in now}
        if model := self._start(one):
            now[_TOKENIZER], there[_TOKENIZER] = self._tokenizer(model), tokenizer
        return difference(there, now) or self._other_data(one) or self._other_text(one, tokenizer, tables[_TEXT])

    def _numbers(self, one: Member) -> dict[str, Any]:
        if one.numbers is not None:
            return {"task": one.task.name, **one.numbers.numbers()}
        numbers = self._suite.numbers(one.task, STUDENT, one.seed).numbers()
        return {"task": one.task.name} | {name: numbers[name] for name in _SHARED}

    def _weights(self, one: Member, then: dict[str, str]) -> dict[str, str]:
        """Of what it starts from, and of what teaches it, unless that is to be made anew: it may come to the same."""
        found = {"model": self._of_weights(model)} if (model := self._start(one)) else {}
        teacher = self._suite.member_folder(one.task, TEACHER, one.seed) / MODEL
        if "teacher" in then and teacher.exists():
            found["teacher"] = self._of_weights(str(teacher))
        return found

    def _start(self, one: Member) -> str:
        """The model that is fine-tuned, where that is known: no teacher may be given, and a student may be cut."""
        return self._suite.start(one.label)

    def _other_data(self, one: Member) -> str:
        """Where the text of a run that is asked for lay, if elsewhere; other tasks may come from elsewhere."""
        suite = self._suite
        asked = one.task.name in {task.name for task in suite.tasks} and one.seed in suite.seeds
        if one.numbers is None or not asked or DATA not in (notes := one.notes()):
            return ""
        then, now = str(notes[DATA]), one.numbers.source.data
        return "" if _place(then) == _place(now) else f"data: {then or 'the hub'} there, {now or 'the hub'} here"

    def _other_text(self, one: Member, tokenizer: str, text: dict[str, Any]) -> str:
        first, read = self._read.setdefault((one.task.name, tokenizer), (one, text))
        names = [name for name in read.keys() | text.keys() if read.get(name) != text.get(name)]
        return f"its text is another than that of {first.folder}: {', '.join(sorted(names))}" if names else ""

    def _of_weights(self, name: str) -> str:
        stats = [(path.name, path.stat()) for path in sorted(Path(name).glob("*.safetensors"))]
        key = (name, *((file, stat.st_size, stat.st_mtime_ns) for file, stat in stats))
        if key not in self._hashed:
            self._hashed[key] = weights_fingerprint(name, load_config(name))
        return self._hashed[key]

    def _tokenizer(self, name: str) -> str:
        key = (_TOKENIZER, name)
        if key not in self._hashed:
            self._hashed[key] = fingerprint(load_tokenizer(name))
        return self._hashed[key]


def _place(data: str) -> str:
    """Where a task's text lies, by one name."""
    return data if not data or data.startswith(PREFIX) else str(Path(data).resolve())
