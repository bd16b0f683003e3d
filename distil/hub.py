"""Names on the hub, with the revision that pins what they stand for."""

from __future__ import annotations

import re
from pathlib import Path

from distil.errors import ConfigError

_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*")


def pinned(name_or_dir: str) -> tuple[str, str | None]:
    """Name and revision of NAME@REVISION; a folder, or a name without one, has none.

    Raises ConfigError for a revision that is neither a branch, a tag nor a commit.
    """
    name, at, revision = name_or_dir.rpartition("@")
    if not at or Path(name_or_dir).exists():
        return name_or_dir, None
    if not name or not _REVISION.fullmatch(revision) or ".." in revision:
        raise ConfigError(f"{name_or_dir!r}: give NAME@REVISION, REVISION being a branch, a tag or a commit")
    return name, revision
