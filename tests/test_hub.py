"""Names on the hub with revisions."""

from __future__ import annotations

import pytest

from distil.errors import ConfigError
from distil.hub import pinned


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("bert-base-uncased", ("bert-base-uncased", None)),
        ("google/bert@main", ("google/bert", "main")),
        ("google/bert@v1.0", ("google/bert", "v1.0")),
        ("bert@86b5e0934494bd15c9632b12f734a8a67f723594", ("bert", "86b5e0934494bd15c9632b12f734a8a67f723594")),
        ("bert@refs/pr/3", ("bert", "refs/pr/3")),
    ],
)
def test_a_revision_is_what_follows_the_last_at(name, wanted):
    assert pinned(name) == wanted


@pytest.mark.parametrize("name", ["bert@", "@main", "bert@../x", "bert@-x", "bert@a b", "bert@$(x)"])
def test_what_no_revision_can_be_is_refused(name):
    with pytest.raises(ConfigError, match="NAME@REVISION"):
        pinned(name)


def test_a_folder_may_be_called_anything(tmp_path):
    (tmp_path / "a@b").mkdir()
    assert pinned(str(tmp_path / "a@b")) == (str(tmp_path / "a@b"), None)
