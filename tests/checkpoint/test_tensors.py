"""Elements of parameters in files of any number of ranks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.checkpoint import tensors
from distil.checkpoint.tensors import Reader
from distil.errors import DataError

PARAMETER = torch.arange(1000.0)


def split(root, cuts):
    """One parameter in as many files as cuts make pieces."""
    edges = [0, *sorted(cuts), 1000]
    paths = []
    for rank, (first, last) in enumerate(zip(edges, edges[1:], strict=False)):
        paths.append(root / tensors.file_name(rank))
        if first < last:
            tensors.write(paths[-1], {("fp32", "w.x", first): PARAMETER[first:last].clone()})
        else:
            tensors.write(paths[-1], {})
    return paths


@settings(max_examples=30, deadline=None)
@given(cuts=st.sets(st.integers(1, 999), max_size=7), first=st.integers(0, 999), data=st.data())
def test_any_run_of_elements_is_found_however_they_were_cut(tmp_path_factory, cuts, first, data):
    numel = data.draw(st.integers(1, 1000 - first))
    with Reader(split(tmp_path_factory.mktemp("cut"), cuts)) as reader:
        assert reader.read("fp32", "w.x", first, numel).equal(PARAMETER[first : first + numel])


def test_what_is_missing_is_named(tmp_path):
    paths = split(tmp_path, [400])
    with Reader(paths[1:]) as reader, pytest.raises(DataError, match="holds 600 of 1,000 elements of w.x"):
        reader.read("fp32", "w.x", 0, 1000)
    with Reader(paths) as reader, pytest.raises(DataError, match="0 of 1 elements of v"):
        reader.read("fp32", "v", 0, 1)


def test_random_states_come_back_to_their_ranks(tmp_path):
    path = tmp_path / tensors.file_name(3)
    torch.manual_seed(5)
    tensors.write(path, tensors.random_states(3))
    wanted = torch.rand(4)
    torch.manual_seed(6)
    with Reader([path]) as reader:
        assert reader.random_states(2) == {}
        tensors.set_random_states(reader.random_states(3))
        assert torch.rand(4).equal(wanted)
    tensors.set_random_states({"cpu": torch.zeros(7, dtype=torch.uint8)})  # of another torch: left alone


@pytest.mark.parametrize("content", [b"", b"\x80\x04.", b"\xff" * 64, b'\x02\x00\x00\x00\x00\x00\x00\x00{"'])
def test_what_is_no_safetensors_is_refused(tmp_path, content):
    (tmp_path / "rank-00000.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="no tensors as we write them"):
        Reader([tmp_path / "rank-00000.safetensors"])


def test_foreign_keys_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.ones(2)}, tmp_path / "rank-00000.safetensors")
    with pytest.raises(DataError, match="no tensors as we write them"):
        Reader([tmp_path / "rank-00000.safetensors"])
