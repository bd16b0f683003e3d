"""Patterns of stores: what they find, in which order and with which weights, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from stores import append, build, origin, texts

from distil.config import Recipe
from distil.data.draft import Draft
from distil.data.store_writer import StoreWriter
from distil.errors import ConfigError, DataError
from distil.prepare import with_stores_found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Stores, and what is none: held-out parts, an unfinished build, a pair without sidecar, a file of JSON."""
    folder = tmp_path_factory.mktemp("above") / "data"
    folder.mkdir()
    for name in ("wiki-fr", "wiki-de", "wiki-B", "wiki-de-heldout", "wiki-fr-heldout", "books"):
        build(folder / name, texts(3))
    with pytest.raises(KeyboardInterrupt), Draft({"store": f"{folder}/wiki-es"}) as draft:
        writer = StoreWriter(draft, "store", origin())
        append(writer, texts(1))
        writer.seal()
        writer.close()
        draft.write_journal({"sealed": True})
        raise KeyboardInterrupt
    assert (folder / "wiki-es.building" / "store.json").exists()
    (folder / "wiki-it.bin").touch()
    (folder / "wiki-sizes.json").write_text("{}")
    return folder


def recipe(*store: object, exponent: float = 1.0) -> Recipe:
    return Recipe.load("quickstart", {"store": list(map(str, store)), "sampling_exponent": exponent})


def found(*store: object) -> list[tuple[str, float | None]]:
    return with_stores_found(recipe(*store)).data.stores


def test_a_pattern_finds_stores_in_the_order_of_their_names(folder):
    wiki = [(f"{folder}/wiki-{language}", None) for language in ("B", "de", "fr")]
    assert found(folder / "wiki-*") == wiki
    assert found(folder / "*") == [(f"{folder}/books", None), *wiki]
    assert found(folder / "wiki-[df]?") == wiki[1:]
    assert found(folder.parent / "*" / "w*-*") == wiki  # nor what is within wiki-es.building
    assert found(folder / "**" / "wiki-*") == wiki


def test_other_entries_stay_where_they_are(folder):
    names = [f"{folder}/wiki-fr-heldout", "sample:text", "no/such/store"]
    assert found(names[0], folder / "b*", *names[1:]) == [
        (names[0], None), (f"{folder}/books", None), (names[1], None), (names[2], None)
    ]  # fmt: skip


def test_everything_else_of_the_recipe_stays(folder):
    before = recipe(folder / "wiki-*", exponent=0.7)
    after = with_stores_found(before)
    data = dataclasses.replace(before.data, store=tuple(f"{folder}/wiki-{name}" for name in ("B", "de", "fr")))
    assert after == dataclasses.replace(before, data=data)
    assert after.mathematics()["data"]["store"] == list(data.store)  # a run is known by the names found
    assert with_stores_found(after) == after


def test_each_store_found_has_the_weight_of_its_pattern(folder):
    wiki = [(f"{folder}/wiki-{language}", 0.25) for language in ("B", "de", "fr")]
    assert found(f"{folder}/wiki-*:2.5e-1", f"{folder}/books:3") == [*wiki, (f"{folder}/books", 3.0)]


def test_a_store_whose_name_looks_like_a_pattern_is_itself(tmp_path):
    for name in ("[a]", "a"):
        build(tmp_path / name, texts(3))
    assert found(tmp_path / "[a]") == [(f"{tmp_path}/[a]", None)]


@pytest.mark.parametrize("pattern", ["wiki-z*", "*-heldout", "wiki-es.building/*", "wiki-i?", "wiki-s*"])
def test_a_pattern_that_finds_nothing_is_refused(folder, pattern):
    with pytest.raises(DataError) as caught:
        found(folder / pattern)
    message = str(caught.value)
    assert message.startswith(f"{folder}/{pattern}: no store fits this pattern") and "\n" not in message
    assert "launch/binarize.py" in message


@pytest.mark.parametrize("other", ["wiki-de", "wiki-d*"])
def test_a_store_found_twice_is_refused(folder, other):
    with pytest.raises(ConfigError, match=r"it must be without repetition"):
        found(folder / other, folder / "wiki-*")
