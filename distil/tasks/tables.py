"""The tables of fine-tuning: every number that decides its result, documented where it is declared and in range."""

from __future__ import annotations

from dataclasses import dataclass

from distil.errors import ConfigError
from distil.fields import option, require


@dataclass(frozen=True, kw_only=True)
class TaskLoss:
    """What a fine-tuned model is trained on: the task's labels, a fitted teacher's answers, or both."""

    temperature: float = option("T of the softened distributions", default=2.0)
    alpha_task: float = option("weight of the task's own loss, against the labels", default=1.0)
    alpha_ce: float = option(
        "weight of T^2 KL(teacher || student) over the classes, or over the places of an answer's start and end; of a "
        "regression of the squared difference of the outputs", default=0.0,
    )  # fmt: skip
    alpha_cos: float = option("weight of 1 - cosine of the last hidden states of [CLS]", default=0.0)

    def __post_init__(self) -> None:
        require(self.temperature > 0, "temperature", self.temperature, "above 0")
        for name in ("alpha_task", "alpha_ce", "alpha_cos"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        if not self.alpha_task and not self.alpha_ce:
            raise ConfigError(
                "alpha_task and alpha_ce are 0, so nothing trains the head; give --alpha_task or --alpha_ce above 0"
            )

    @property
    def needs_teacher(self) -> bool:
        """Whether any term compares with the teacher."""
        return self.alpha_ce > 0 or self.alpha_cos > 0
