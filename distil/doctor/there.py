"""What a host says of itself. Sent to its python over ssh as it stands, so it needs the standard library alone."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "deepspeed", "transformers", "numpy")


def report(root: str, marker: str) -> dict[str, object]:
    """Versions, the code under ``root``, whether the file ``marker`` is seen, and the clock."""
    versions = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    return {
        "versions": versions | {"distil": _code(Path(root))},
        "seen": Path(marker).exists(),
        "time": time.time(),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _code(root: Path) -> str:
    """A digest of everything that a run is made of, for ``missing`` where there is none of it."""
    files = sorted(path for name in ("distil", "launch", "ds_config") for path in (root / name).rglob("*"))
    digest = hashlib.sha256()
    for path in files:
        if path.suffix in (".py", ".json", ".toml", ".cu", ".cpp", ".h"):
            digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:12] if files else "missing"


if __name__ == "__main__":
    print(json.dumps(report(*sys.argv[1:])))
