"""Questions and contexts as windows of tokens.

A context that is too long for one sequence is read in several, each with the whole question, neighbours sharing
``stride`` tokens (for BERT, Devlin et al. 2019, a stride is the step instead). The answer of a window is (0, 0), its
first token, unless all of the example's answer is inside, as in BERT's own code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from distil.errors import ConfigError
from distil.tasks.batch import Features
from distil.tasks.task import Answer, Examples, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LONGEST_QUESTION = 64  # tokens; BERT's max_query_length
BATCH = 500  # texts tokenised at once


@dataclass(frozen=True)
class Tokens:
    """Texts tokenised without special tokens, end to end; ``offsets`` are characters from and to."""

    ids: np.ndarray
    offsets: np.ndarray
    starts: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text."""
        return np.diff(self.starts)


@dataclass(frozen=True)
class Template:
    """What the tokenizer puts around and between two texts: ids and token types."""

    ids: tuple[np.ndarray, np.ndarray, np.ndarray]  # before, between, after
    types: tuple[np.ndarray, np.ndarray, np.ndarray]
    text_types: tuple[int, int]

    @property
    def special(self) -> int:
        """Tokens that are of neither text."""
        return sum(map(len, self.ids))


def windows_of(task: Task, examples: Examples, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Features:
    """All windows of all examples, in order. Raises ConfigError where ``max_length`` is too short for the stride."""
    template = template_of(tokenizer)
    room = max_length - template.special
    longest_question = min(LONGEST_QUESTION, room // 2)
    if task.stride >= room - longest_question:
        raise ConfigError(
            f"a max_length of {max_length} leaves {room - longest_question} tokens of context after the longest "
            f"question, and windows share {task.stride}: raise max_length or lower the stride"
        )
    questions = tokenised(examples.texts[0], tokenizer)
    distinct = {text: i for i, text in enumerate(dict.fromkeys(examples.texts[1]))}  # a context has many questions
    contexts = tokenised(list(distinct), tokenizer)
    of_example = np.fromiter((distinct[text] for text in examples.texts[1]), np.int64, len(examples))
    asked = np.minimum(questions.lengths, longest_question)
    numbers, begins, ends = _cut(contexts.lengths[of_example], room - asked, task.stride)
    lengths = template.special + asked[numbers] + ends - begins
    starts = np.concatenate(([0], np.cumsum(lengths)))
    ids, types = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.int32)
    offsets = np.full((starts[-1], 2), -1, np.int32)
    before, between, after = template.ids
    for number, begin, end, start in zip(numbers, begins, ends, starts[:-1], strict=True):
        question, context = questions.starts[number], contexts.starts[of_example[number]]
        parts = (
            (before, template.types[0]),
            (questions.ids[question : question + asked[number]], template.text_types[0]),
            (between, template.types[1]),
            (contexts.ids[context + begin : context + end], template.text_types[1]),
            (after, template.types[2]),
        )
        for k, (part, kind) in enumerate(parts):
            ids[start : start + len(part)] = part
            types[start : start + len(part)] = kind
            if k == 3:
                offsets[start : start + len(part)] = contexts.offsets[context + begin : context + end]
            start += len(part)
    first, last = _answers(examples.answers, contexts, of_example)
    inside = (first[numbers] >= begins) & (last[numbers] < ends) & (first[numbers] <= last[numbers])
    shift = (len(before) + asked[numbers] + len(between) - begins) * inside
    places = np.stack((first[numbers] * inside + shift, last[numbers] * inside + shift), axis=1)
    return Features(ids, types, starts, places, numbers, offsets)


def template_of(tokenizer: PreTrainedTokenizerFast) -> Template:
    """The tokenizer's template of a pair, read off two texts of a word."""
    encoded = tokenizer(["a"], ["a"], return_token_type_ids=True)
    ids, types = np.array(encoded["input_ids"][0], np.int32), np.array(encoded["token_type_ids"][0], np.int32)
    of_text = [-1 if i is None else i for i in encoded.sequence_ids(0)]
    first, second = (np.flatnonzero(np.equal(of_text, k)) for k in (0, 1))
    cuts = slice(0, first[0]), slice(first[-1] + 1, second[0]), slice(second[-1] + 1, len(ids))
    return Template(
        tuple(ids[cut] for cut in cuts),
        tuple(types[cut] for cut in cuts),
        (int(types[first[0]]), int(types[second[0]])),
    )


def tokenised(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> Tokens:
    """The texts' tokens, without special ones."""
    ids, offsets, lengths = [], [], [np.zeros(1, np.int64)]
    for start in range(0, len(texts), BATCH):
        encoded = tokenizer(
            list(texts[start : start + BATCH]), add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        lengths.append(np.fromiter(map(len, encoded["input_ids"]), np.int64))
        count = int(lengths[-1].sum())
        ids.append(np.fromiter(chain.from_iterable(encoded["input_ids"]), np.int32, count))
        pairs = chain.from_iterable(encoded["offset_mapping"])
        offsets.append(np.fromiter(chain.from_iterable(pairs), np.int32, 2 * count).reshape(-1, 2))
    return Tokens(np.concatenate(ids), np.concatenate(offsets), np.cumsum(np.concatenate(lengths)))


def _cut(lengths: np.ndarray, rooms: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each window the number of its example, and where in the context it begins and ends."""
    steps = rooms - stride
    counts = 1 + np.maximum(0, -((rooms - lengths) // steps))
    numbers = np.repeat(np.arange(len(lengths)), counts)
    within = np.arange(len(numbers)) - np.repeat(np.cumsum(counts) - counts, counts)
    begins = within * steps[numbers]
    return numbers, begins, np.minimum(begins + rooms[numbers], lengths[numbers])


def _answers(answers: Sequence[Answer], contexts: Tokens, of_example: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each example the first and the last token of its first answer, counted in its context; (0, -1) without."""
    first, last = np.zeros(len(answers), np.int64), np.full(len(answers), -1, np.int64)
    for i, answer in enumerate(answers):
        if answer.texts:
            text = of_example[i]
            offsets = contexts.offsets[contexts.starts[text] : contexts.starts[text + 1]]
            start = answer.starts[0]
            first[i] = np.searchsorted(offsets[:, 1], start, side="right")
            last[i] = np.searchsorted(offsets[:, 0], start + len(answer.texts[0]), side="left") - 1
    return first, last
