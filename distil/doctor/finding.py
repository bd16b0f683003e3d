"""One finding, as it is printed, and a limit to the time that it may take."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")
OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True)
class Finding:
    """``state`` is OK, WARN (works, but slower or less) or FAIL; ``remedy`` says what to do about the last two."""

    state: str
    name: str
    found: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.state:<5}{self.name:<16}{self.found}{f'; {self.remedy}' if self.remedy else ''}"


def within(seconds: float, work: Callable[[], T]) -> T:
    """What ``work`` returns or raises; TimeoutError where it takes longer, as on a network disk that has gone.

    Such work cannot be ended from here, only left behind.
    """
    outcome: list[T] = []
    raised: list[Exception] = []

    def attempt() -> None:
        try:
            outcome.append(work())
        except Exception as error:  # noqa: BLE001 - raised again where it belongs
            raised.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(seconds)
    if raised:
        raise raised[0]
    if not outcome:
        raise TimeoutError(f"not done within {seconds:g} s")
    return outcome[0]
