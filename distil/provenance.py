"""What is written of an ablation beside its figures: how each run was made, and which of a pair were not made alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from distil.made import COMPARED
from distil.members import MADE
from distil.variants import WHOLE
from distil.variation import Line, table

How = Mapping[str, Any]  # how a run was made, as ``made_now`` has it


def document(lines: Sequence[Line], numbers: Mapping[str, Any], warnings: Sequence[str]) -> str:
    """The table with all that is needed to make it again."""
    runs = [(line.variant.name, seed) for line in lines for seed in line.by_seed]
    length = f"{numbers['steps']:,} steps a run, about {numbers['tokens_about']:,} tokens; "
    length += f"measured on {numbers['heldout_positions']:,} held-out positions."
    title = f"# Ablation of the recipe {numbers['recipe']['name']}"
    notes = [line for text in warnings for line in (text, "")]
    commands = [f"    {command}" for command in numbers["commands"]]
    return "\n".join(
        [title, "", table(lines), "", *notes, length, "", *commands, "", *_made(runs, numbers.get(MADE, {})), ""]
    )  # fmt: skip


def _made(runs: Sequence[tuple[str, int]], made: Mapping[str, How]) -> list[str]:
    """A line for all runs that were made alike, but for the day: how, and which they are."""
    alike: dict[str, list[tuple[str, int]]] = {}
    for name, seed in runs:
        how = made.get(f"{name}-seed{seed}")
        alike.setdefault(_how(how) if how else "how and when they were made is not recorded", []).append((name, seed))
    found = []
    for text, those in alike.items():
        dates = [str(made.get(f"{name}-seed{seed}", {}).get("date", "")) for name, seed in those]
        days = " to ".join(dict.fromkeys((min(dates), max(dates))))
        seeds: dict[str, list[int]] = {}
        for name, seed in those:
            seeds.setdefault(name, []).append(seed)
        which = "; ".join(f"{name}, {_seeds(numbers)}" for name, numbers in seeds.items())
        found.append(f"- {len(those)} of {len(runs)} runs{f', {days}' if days else ''}: {text}: {which}")
    return found


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
        f"{'; '.join(f'{name}, {_seeds(seeds)}' for name, seeds in those.items())}: {apart} of the whole recipe"
        for apart, those in found.items()
    ]
    return [f"warning: runs that are compared are not made alike: {'; '.join(rows)}"] if rows else []


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _how(made: How) -> str:
    """In words; of what is not there, a question mark."""
    of = {
        key: made.get(key, "?") for key in ("machine", "ranks", "precision", "ds_config", "torch", "deepspeed", "git")
    }
    return (
        f"{of['machine']}; {of['ranks']} rank(s), {of['precision']}, {of['ds_config']}; torch {of['torch']}, "
        f"DeepSpeed {of['deepspeed']}, git {of['git']}"
    )
