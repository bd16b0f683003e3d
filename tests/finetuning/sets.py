"""Tiny sets for fine-tuning, made on the spot."""

from __future__ import annotations

import json
import random
from pathlib import Path

from harness import WORDS

A_WORDS, OTHERS = [word for word in WORDS if "a" in word], [word for word in WORDS if "a" not in word]
Annotated = list[tuple[str, str]]  # text and label


def reviews(count: int, seed: int) -> Annotated:
    """Texts of words with an a, which are good, and of others, which are bad."""
    rng = random.Random(seed)
    labels = [rng.choice(("good", "bad")) for _ in range(count)]
    return [(" ".join(rng.choices(A_WORDS if x == "good" else OTHERS, k=rng.randint(3, 12))), x) for x in labels]


def write_csv(path: Path, rows: Annotated, header: str = "text,label") -> Path:
    """The rows as a CSV file."""
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n")
    return path


def write_squad(path: Path, count: int, seed: int) -> Path:
    """Questions of one word, which is in the context and, with the word after it, the answer; SQuAD 1.1's layout."""
    rng, questions = random.Random(seed), []
    for number in range(count):
        words = rng.sample(WORDS, rng.randint(8, 40))
        place = rng.randrange(len(words) - 1)
        context, answer = " ".join(words), " ".join(words[place : place + 2])
        found = {"text": answer, "answer_start": len(" ".join([*words[:place], ""]))}
        question = {"id": str(number), "question": words[place], "answers": [found]}
        questions.append({"context": context, "qas": [question]})
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "words", "paragraphs": questions}]}))
    return path
