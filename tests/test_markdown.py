"""Tables as text."""

from __future__ import annotations

from distil.markdown import aligned


def test_columns_are_as_wide_as_their_widest_cell():
    assert aligned(("", "long head"), [("a", "1"), ("word", "2")]).splitlines() == [
        "|      | long head |",
        "| ---- | --------- |",
        "| a    | 1         |",
        "| word | 2         |",
    ]


def test_a_table_without_rows_has_its_head():
    assert aligned(("a", "b"), []) == "| a | b |\n| - | - |"
