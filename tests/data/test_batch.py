"""Packed micro-batches: positions, boundaries, next tokens, and what decides masks in training and held out."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from stores import build, masker_of, texts

from distil.data.batch import HELDOUT_BUDGET, Batcher, PackedBatch, heldout_batches
from distil.data.masking import NextToken
from distil.data.mixture import Mixture
from distil.data.sampler import generator
from distil.data.store import Store
from distil.shares import ceil_share

BUDGET, SEED = 64, 5


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return build(tmp_path_factory.mktemp("store") / "s", texts(60))


def batcher(store: Store, seed: int = SEED) -> Batcher:
    mixture = Mixture([store], None, BUDGET, SEED)
    return Batcher(mixture, masker_of(mixture), seed)


def same(one: PackedBatch, other: PackedBatch) -> bool:
    pairs = [(getattr(one, f.name), getattr(other, f.name)) for f in fields(PackedBatch)]
    return all(torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def original(batch: PackedBatch) -> np.ndarray:
    """The ids before masking: the label where there is one, the input elsewhere."""
    return torch.where(batch.labels_N >= 0, batch.labels_N, batch.input_ids_N).numpy()


# --- packing -------------------------------------------------------------------------------------------------------


def packed(lengths: list[int]) -> PackedBatch:
    n = sum(lengths)
    return PackedBatch.pack(np.arange(100, 100 + n), np.full(n, -100), np.array(lengths, dtype=np.int32))


@pytest.mark.parametrize(
    ("lengths", "bounds", "positions"),
    [
        ([3, 1, 2], [0, 3, 4, 6], [0, 1, 2, 0, 0, 1]),
        ([4], [0, 4], [0, 1, 2, 3]),
        ([1], [0, 1], [0]),
        ([1, 1, 1], [0, 1, 2, 3], [0, 0, 0]),
        ([2, 2], [0, 2, 4], [0, 1, 0, 1]),
    ],
)
def test_positions_and_boundaries(lengths, bounds, positions):
    batch = packed(lengths)
    assert batch.cu_seqlens_B1.tolist() == bounds and batch.cu_seqlens_B1.dtype == torch.int32
    assert batch.position_ids_N.tolist() == positions and batch.position_ids_N.dtype == torch.int64
    assert batch.longest == max(lengths) and isinstance(batch.longest, int)
    assert batch.input_ids_N.tolist() == list(range(100, 100 + sum(lengths)))


@pytest.mark.parametrize("labels", [[-100, 7, -100, 0, 9], [-100] * 5, [1, 2, 3, 4, 5]])
def test_rows_to_be_predicted(labels):
    batch = PackedBatch.pack(np.arange(5), np.array(labels), np.array([2, 3], dtype=np.int32))
    assert batch.predicted_rows_M.tolist() == [i for i, label in enumerate(labels) if label != -100]
    assert batch.predicted_rows_M.dtype == torch.int64 and batch.labels_N.tolist() == labels


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [([3, 1, 2], [101, 102, -100, -100, 105, -100]), ([1], [-100]), ([4], [101, 102, 103, -100])],
)
def test_the_next_token_of_each(lengths, wanted):
    ids = np.arange(100, 100 + sum(lengths), dtype=np.uint16)
    inputs, labels = NextToken().targets(ids, np.array(lengths, dtype=np.int32), generator("masks", 0))
    assert inputs.tolist() == ids.tolist() and labels.tolist() == wanted
    assert inputs.dtype == labels.dtype == np.int64
    assert NextToken().count(len(ids), len(lengths)) == sum(label != -100 for label in wanted)


def test_batches_of_a_causal_model_have_nothing_masked(store):
    b = Batcher(Mixture([store], None, BUDGET, SEED), NextToken(), SEED)
    for number in range(4):
        batch = b.batch(number)
        ends = batch.cu_seqlens_B1[1:].long() - 1
        inside = torch.ones(len(batch.input_ids_N), dtype=torch.bool)
        inside[ends] = False
        assert (batch.labels_N[ends] == -100).all() and inside.sum() == len(batch.predicted_rows_M)
        following = inside.nonzero().flatten() + 1
        assert torch.equal(batch.labels_N[inside], batch.input_ids_N[following])


def test_moving_keeps_everything():
    batch = packed([3, 1])
    moved = batch.to(torch.device("meta"))
    assert moved.input_ids_N.device.type == moved.cu_seqlens_B1.device.type == "meta"
    assert moved.longest == 3 and same(batch.to(torch.device("cpu")), batch)


# --- training batches ----------------------------------------------------------------------------------------------


def test_a_batch_is_its_sequences_end_to_end(store):
    b = batcher(store)
    for number in range(b.mixture.micro_batches):
        batch = b.batch(number)
        numbers = store.at(b.mixture.plans[0].places(number))
        assert original(batch).tolist() == np.concatenate([store.sequence(i) for i in numbers]).tolist()
        assert np.diff(batch.cu_seqlens_B1.numpy()).tolist() == store.sizes[numbers].tolist()
        assert len(batch.input_ids_N) == b.mixture.tokens(number) <= BUDGET
        assert batch.input_ids_N.dtype == batch.labels_N.dtype == torch.int64


def test_the_same_number_is_the_same_batch(store):
    one, other = batcher(store), batcher(store)
    numbers = [0, 7, one.mixture.micro_batches + 3]
    later = [other.batch(number) for number in reversed(numbers)]  # in another order, as after a resume
    assert all(same(one.batch(number), batch) for number, batch in zip(reversed(numbers), later, strict=True))


def test_another_seed_has_other_masks(store):
    one, other = batcher(store).batch(0), batcher(store, seed=SEED + 1).batch(0)
    assert original(one).tolist() == original(other).tolist()
    assert not torch.equal(one.labels_N, other.labels_N)


def test_batches_of_an_epoch_have_masks_of_their_own(tmp_path):
    # One text throughout: were the masks not keyed by the batch's number, all batches would be masked alike.
    b = batcher(build(tmp_path / "s", [texts(1)[0]] * 20))
    labels = {tuple(b.batch(number).labels_N.tolist()) for number in range(8)}
    assert len(labels) == 8


def test_the_next_epoch_masks_the_same_sequences_anew(tmp_path):
    # One sequence of the whole budget a batch: the same one is found again, whatever the order of the epochs.
    store = build(tmp_path / "s", [np.r_[2, np.full(BUDGET - 2, 10 + i), 3] for i in range(4)])
    b = batcher(store)
    epochs = [{int(original(x)[1]): x for x in map(b.batch, range(4 * e, 4 * e + 4))} for e in range(2)]
    assert epochs[0].keys() == epochs[1].keys() == {10, 11, 12, 13}
    for word, batch in epochs[0].items():
        again = epochs[1][word]
        assert original(batch).tolist() == original(again).tolist()
        assert not torch.equal(batch.labels_N, again.labels_N)


def test_the_plan_knows_the_counts_of_its_batches(store):
    b = batcher(store)
    numbers = range(2, b.mixture.micro_batches + 2)  # into the second epoch
    made = [b.batch(number) for number in numbers]
    attended = sum(len(batch.input_ids_N) for batch in made)
    masked = sum(int((batch.labels_N >= 0).sum()) for batch in made)
    sequences = sum(len(batch.cu_seqlens_B1) - 1 for batch in made)
    tokens = [b.mixture.tokens(number) for number in numbers]
    assert sequences == sum(b.mixture.sequences(number) for number in numbers)
    assert attended == sum(tokens) and masked == sum(ceil_share(n, b.objective.fraction) for n in tokens)
    assert masked == sum(b.objective.count(n, b.mixture.sequences(i)) for n, i in zip(tokens, numbers, strict=True))


# --- held-out batches ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def heldout(tmp_path_factory) -> Store:
    return build(tmp_path_factory.mktemp("store") / "h", texts(300, longest=120, seed=1))


def test_held_out_text_of_a_causal_model_is_asked_whole(heldout):
    made = heldout_batches([heldout], 10**9, causal=True)
    masked = heldout_batches([heldout], 10**9)
    assert sum(len(batch.predicted_rows_M) for batch in made) == heldout.tokens - len(heldout)
    assert all(torch.equal(one.cu_seqlens_B1, other.cu_seqlens_B1) for one, other in zip(made, masked, strict=True))


def test_held_out_batches_are_fixed(heldout):
    one, other = (heldout_batches([heldout], 10**9) for _ in range(2))
    assert len(one) == len(other) > 3 and all(map(same, one, other))
    assert any((batch.labels_N >= 0).any() for batch in one)


def test_held_out_batches_cover_the_store_once_shortest_first(heldout):
    made = heldout_batches([heldout], heldout.tokens)
    rows = [row.tolist() for b in made for row in np.split(original(b), b.cu_seqlens_B1.numpy()[1:-1])]
    assert sorted(rows) == sorted(heldout.sequence(i).tolist() for i in range(len(heldout)))
    assert list(map(len, rows)) == sorted(map(len, rows))
    tokens = [len(batch.input_ids_N) for batch in made]
    assert max(tokens) <= HELDOUT_BUDGET and min(tokens[:-1]) > HELDOUT_BUDGET - 120


@pytest.mark.parametrize("at_most", [1, 500, 5000])
def test_at_most_so_many_tokens(heldout, at_most):
    made = heldout_batches([heldout], at_most)
    tokens = sum(len(batch.input_ids_N) for batch in made)
    sequences = sum(len(batch.cu_seqlens_B1) - 1 for batch in made)
    assert tokens == heldout.sizes[:sequences].sum()  # the first of the store
    # As many as fit and no fewer, but one at least: an evaluation of nothing has no figures.
    assert tokens <= at_most or sequences == 1
    assert tokens + heldout.sizes[sequences] > at_most


def test_just_enough_tokens_are_all_taken(heldout):
    first_ten = int(heldout.sizes[:10].sum())
    made = heldout_batches([heldout], first_ten)
    assert sum(len(batch.cu_seqlens_B1) - 1 for batch in made) == 10


def test_a_sequence_beyond_the_budget_has_a_batch_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("distil.data.batch.HELDOUT_BUDGET", 50)
    store = build(tmp_path / "s", [np.r_[2, np.full(n - 2, 9), 3] for n in (70, 20, 60, 20)])
    made = heldout_batches([store], 10**6)
    assert [np.diff(b.cu_seqlens_B1.numpy()).tolist() for b in made] == [[20, 20], [60], [70]]


def test_held_out_batches_differ_in_their_masks(tmp_path, monkeypatch):
    monkeypatch.setattr("distil.data.batch.HELDOUT_BUDGET", 60)
    store = build(tmp_path / "s", [np.r_[2, np.full(58, 9), 3]] * 6)
    made = heldout_batches([store], 10**6)
    assert len({tuple(batch.labels_N.tolist()) for batch in made}) == 6


def test_several_held_out_stores_have_equal_shares(heldout, store):
    made = heldout_batches([heldout, store], 2000)
    alone = [*heldout_batches([heldout], 1000), *heldout_batches([store], 1000)]
    assert [original(batch).tolist() for batch in made] == [original(batch).tolist() for batch in alone]


def test_no_held_out_store_has_no_batches():
    assert heldout_batches([], 1000) == []
