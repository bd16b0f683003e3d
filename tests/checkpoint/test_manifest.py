"""What a checkpoint says of itself survives, and any change of it is seen."""

from __future__ import annotations

import dataclasses
import json

import pytest

from distil.checkpoint.manifest import MANIFEST, FileEntry, Manifest, Position, hash_file
from distil.errors import DataError

WHOLE = Manifest(
    position=Position(10, 40, 5000),
    ranks=2,
    zero_stage=1,
    precision="fp16",
    identity={"recipe": "r", "store": ["0123"]},
    numbers={"adam_steps": 9, "scaler": {"cur_scale": 1024.0}},
    health={"bad_steps": 1, "usual": 1 / 3},
    files={},
)


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "rank-00000.safetensors").write_bytes(b"some bytes")
    entry = FileEntry(10, hash_file(tmp_path / "rank-00000.safetensors"))
    dataclasses.replace(WHOLE, files={"rank-00000.safetensors": entry}).write(tmp_path)
    return tmp_path


def test_read_is_what_was_written(checkpoint):
    read = Manifest.read(checkpoint)
    read.verify(checkpoint)
    assert dataclasses.replace(read, files={}) == WHOLE  # floats too: JSON keeps all their digits


def test_every_changed_byte_is_seen(checkpoint):
    path = checkpoint / MANIFEST
    whole, original = path.read_bytes(), Manifest.read(checkpoint)
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:
            assert Manifest.read(checkpoint) == original
        except DataError as error:
            assert MANIFEST in str(error)
        else:  # white space, of which JSON has other kinds, and which says nothing
            assert whole[at : at + 1] in b"\n ", (at, whole[at - 5 : at + 5])


def test_every_length_of_it_is_seen(checkpoint):
    path = checkpoint / MANIFEST
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="cannot be read"):
            Manifest.read(checkpoint)


@pytest.mark.parametrize(
    "name", ["../x", "rank-00000.safetensors/../../x", "mp_rank_00_model_states.pt", "/etc/passwd"]
)
def test_files_are_ours_alone(checkpoint, name):
    dataclasses.replace(WHOLE, files={name: FileEntry(1, "")}).write(checkpoint)
    with pytest.raises(DataError, match="names a file"):
        Manifest.read(checkpoint)


def test_another_version_is_said_to_be_one(checkpoint, monkeypatch):
    monkeypatch.setattr("distil.checkpoint.manifest.FORMAT_VERSION", 99)
    WHOLE.write(checkpoint)
    monkeypatch.undo()
    with pytest.raises(DataError, match="another version"):
        Manifest.read(checkpoint)


@pytest.mark.parametrize("content", ["", "[]", "null", '{"sha256": 1}', json.dumps({"sha256": "", "position": {}})])
def test_foreign_json_is_refused(checkpoint, content):
    (checkpoint / MANIFEST).write_text(content)
    with pytest.raises(DataError, match=MANIFEST):
        Manifest.read(checkpoint)


def test_sizes_and_hashes(checkpoint):
    shard = checkpoint / "rank-00000.safetensors"
    manifest = Manifest.read(checkpoint)
    for content, said in ((b"some byte", "9 bytes, 10 were written"), (b"same bytes", "its hash differs")):
        shard.write_bytes(content)
        with pytest.raises(DataError, match=said):
            manifest.verify(checkpoint)
    shard.unlink()
    with pytest.raises(DataError, match="No such file"):
        manifest.verify(checkpoint)
