"""What is written of an ablation beside its figures: how each run was made, and which of a pair were not made alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distil.made import COMPARED, How, in_words, seeds_in_words
from distil.members import MADE
from distil.variants import WHOLE
from distil.variation import Line, table


def document(lines: Sequence[Line], numbers: Mapping[str, Any], warnings: Sequence[str]) -> str:
    """The table with all that is needed to make it again."""
    runs = [(line.variant.name, seed) for line in lines for seed in line.by_seed]
    length = f"{numbers['steps']:,} steps a run, about {numbers['tokens_about']:,} tokens; "
    length += f"measured on {numbers['heldout_positions']:,} held-out positions."
    title = f"# Ablation of the recipe {numbers['recipe']['name']}"
    notes = [line for text in warnings for line in (text, "")]
    commands = [f"    {command}" for command in numbers["commands"]]
    made = numbers.get(MADE, {})
    how = {(name, seed): made.get(f"{name}-seed{seed}", {}) for name, seed in runs}
    return "\n".join(
        [title, "", table(lines), "", *notes, length, "", *commands, "", *in_words(how), ""]
    )  # fmt: skip


def unlike(runs: Iterable[tuple[str, int]], made: Mapping[str, How]) -> list[str]:
    """A warning where a run and the whole recipe's of equal seed differ in what may decide a difference of theirs."""
    found: dict[str, dict[str, list[int]]] = {}
    for name, seed in runs:
        one, whole = made.get(f"{name}-seed{seed}", {}), made.get(f"{WHOLE}-seed{seed}", {})
        apart = [
            f"{key} {one[key]} against {whole[key]}"
            for key in COMPARED if key in one and key in whole and one[key] != whole[key]
        ]  # fmt: skip
        if apart:
            found.setdefault(", ".join(apart), {}).setdefault(name, []).append(seed)
    rows = [
        f"{'; '.join(f'{name}, {seeds_in_words(seeds)}' for name, seeds in those.items())}: {apart} of the whole recipe"
        for apart, those in found.items()
    ]
    return [f"warning: runs that are compared are not made alike: {'; '.join(rows)}"] if rows else []
