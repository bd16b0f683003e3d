"""Whether two runs are the same run, and where they differ."""

from __future__ import annotations

from typing import Any


def difference(then: dict[str, Any], now: dict[str, Any]) -> str:
    """The first few fields of two identities that differ, as 'field: there, here'; empty where they are the same."""
    then_flat, now_flat = _flat(then), _flat(now)
    # Where a store lies is no part of the experiment: its fingerprint tells whether it is the same.
    names = sorted((then_flat.keys() | now_flat.keys()) - {"mathematics.data.store"})
    rows = [
        f"{name.removeprefix('mathematics.')}: {then_flat.get(name)} there, {now_flat.get(name)} here"
        for name in names
        if then_flat.get(name) != now_flat.get(name)
    ]
    return "; ".join(rows[:4]) + (f"; and {len(rows) - 4} more" if len(rows) > 4 else "")


def _flat(tree: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {name: tree}
    return {k: v for key, value in tree.items() for k, v in _flat(value, f"{name}.{key}".lstrip(".")).items()}
