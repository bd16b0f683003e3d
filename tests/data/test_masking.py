"""Masks: exact counts, the published shares and weights, and nothing but the generator decides."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distil.data.masking import Masker
from distil.errors import DataError

SPECIAL = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}
MASK = SPECIAL["mask"]
# Draws are seeded, so a test passes always or never. A bound of 4.5 standard deviations is one that an honest sampler
# exceeds in 1 of 150,000 comparisons, whatever the seed; some hundred comparisons are made here.
SIGMAS = 4.5


def masker(counts=None, *, vocab=50, fraction=0.15, smoothing=0.7, mask_share=0.8, keep_share=0.1) -> Masker:
    counts = np.ones(vocab, dtype=np.int64) if counts is None else np.asarray(counts)
    return Masker.from_counts(
        counts, SPECIAL, fraction=fraction, smoothing=smoothing, mask_share=mask_share, keep_share=keep_share
    )


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def assert_binomial(found: int, draws: int, share: float) -> None:
    deviation = math.sqrt(draws * share * (1 - share))
    assert abs(found - draws * share) <= SIGMAS * deviation, (found, draws * share, deviation)


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.integers(0, 49), min_size=1, max_size=200),
    percent=st.integers(1, 99),
    seed=st.integers(0, 2**32),
)
def test_masks_of_any_batch(ids, percent, seed):
    ids = np.array(ids)
    ordinary = int((ids > 4).sum())
    count = -(-len(ids) * percent // 100)
    m = masker(fraction=float(f"0.{percent:02d}"))
    if ordinary < count:
        with pytest.raises(DataError, match=f"{count} of {len(ids)} .* only {ordinary} "):
            m.mask(ids, rng(seed))
        return
    before = ids.copy()
    inputs, labels = m.mask(ids, rng(seed))
    assert np.array_equal(ids, before)
    assert inputs.dtype == labels.dtype == np.int64 and inputs.shape == labels.shape == ids.shape
    target = labels != -100
    assert target.sum() == count
    assert np.array_equal(labels[target], ids[target])
    assert np.array_equal(inputs[~target], ids[~target])
    assert not np.isin(labels[target], list(SPECIAL.values())).any()
    assert inputs.min() >= 0 and inputs.max() < 50


def test_stored_ids_of_two_bytes_are_masked_alike():
    ids = np.arange(5, 50)
    wide, narrow = (masker().mask(ids.astype(kind), rng()) for kind in (np.int64, np.uint16))
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(wide, narrow, strict=True))


def test_all_ordinary_tokens_can_be_asked_for():
    ids = np.array([2, 10, 11, 12, 3])
    _, labels = masker(fraction=0.6).mask(ids, rng())
    assert labels.tolist() == [-100, 10, 11, 12, -100]


# --- the generator alone decides -----------------------------------------------------------------------------------


def test_the_same_generator_gives_the_same_masks_and_another_gives_others():
    ids = rng(9).integers(5, 50, 400)
    one, same, other = (masker().mask(ids, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one[0], same[0]) and np.array_equal(one[1], same[1])
    assert not np.array_equal(one[1], other[1])


def test_a_generator_goes_on():
    ids, running = rng(9).integers(5, 50, 400), rng(1)
    first, second = masker().mask(ids, running), masker().mask(ids, running)
    assert not np.array_equal(first[1], second[1])


def test_the_masks_are_the_same_on_any_machine():
    # In the order of the text, whatever order a partition leaves the targets in: else no run resumes elsewhere.
    inputs, labels = masker(fraction=0.6).mask(np.arange(5, 25), rng(1))
    assert inputs.tolist() == [5, 4, 7, 4, 22, 10, 38, 4, 4, 4, 15, 4, 17, 18, 19, 4, 21, 4, 4, 24]
    assert labels.tolist() == [
        -100,
        6,
        -100,
        8,
        9,
        -100,
        11,
        12,
        13,
        14,
        -100,
        16,
        -100,
        18,
        -100,
        20,
        -100,
        22,
        23,
        -100,
    ]


# --- what becomes of a target --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mask_share", "keep_share"), [(0.8, 0.1), (0.5, 0.3), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_shares_of_mask_kept_and_random(mask_share, keep_share):
    vocab = 1000
    m = masker(vocab=vocab, fraction=0.5, mask_share=mask_share, keep_share=keep_share)
    ids = rng(3).integers(5, vocab, 100_000)
    inputs, labels = m.mask(ids, rng(4))
    target = labels != -100
    n, (now, was) = int(target.sum()), (inputs[target], labels[target])
    # A random id is the mask token, or the token itself, once in a vocabulary.
    by_chance = (1 - mask_share - keep_share) / vocab
    assert_binomial(int((now == MASK).sum()), n, mask_share + by_chance)
    assert_binomial(int((now == was).sum()), n, keep_share + by_chance)


def test_random_ids_are_uniform_over_the_vocabulary():
    vocab = 20
    m = masker(vocab=vocab, fraction=0.5, mask_share=0.0, keep_share=0.0)
    inputs, labels = m.mask(rng(5).integers(5, vocab, 40_000), rng(6))
    drawn = np.bincount(inputs[labels != -100], minlength=vocab)
    for found in drawn:
        assert_binomial(int(found), 20_000, 1 / vocab)


def test_a_targets_fate_does_not_depend_on_its_place():
    # Targets come sorted: were the first ones always masked, the halves of a batch would differ.
    inputs, labels = masker(vocab=1000, fraction=0.5).mask(rng(7).integers(5, 1000, 100_000), rng(8))
    became = (inputs == MASK)[labels != -100]
    for half in (became[:25_000], became[25_000:]):
        assert_binomial(int(half.sum()), 25_000, 0.8 + 0.1 / 1000)


# --- how likely each token is --------------------------------------------------------------------------------------

COUNTS = {5: 0, 6: 1, 7: 10, 8: 100, 9: 10_000}  # 0 counts as 1: a token of the held-out text that training has not


def weighting(smoothing: float, fraction: float) -> tuple[Masker, dict[int, float]]:
    m = masker([COUNTS.get(i, 7) for i in range(10)], fraction=fraction, smoothing=smoothing)
    return m, {i: math.exp(-smoothing * math.log(max(n, 1))) for i, n in COUNTS.items()}


def sets_drawn(m: Masker, ids: np.ndarray, draws: int) -> Counter:
    running = rng(11)
    return Counter(tuple(np.flatnonzero(m.mask(ids, running)[1] != -100).tolist()) for _ in range(draws))


def probability_of_set(places: tuple[int, ...], weights: list[float]) -> float:
    """Of drawing just these places one after another in proportion to weight, without replacement."""
    total = 0.0
    for order in itertools.permutations(places):
        chance, left = 1.0, sum(weights)
        for place in order:
            chance *= weights[place] / left
            left -= weights[place]
        total += chance
    return total


@pytest.mark.parametrize("smoothing", [0.7, 0.0, 1.0])
@pytest.mark.parametrize("drawn", [1, 2, 3])
def test_tokens_are_drawn_in_proportion_to_their_smoothed_count(drawn, smoothing):
    m, weight = weighting(smoothing, drawn / 5)
    ids, draws = np.array([8, 5, 9, 6, 7]), 5000
    found = sets_drawn(m, ids, draws)
    weights = [weight[i] for i in ids.tolist()]
    wanted = {s: probability_of_set(s, weights) for s in itertools.combinations(range(5), drawn)}
    assert sum(wanted.values()) == pytest.approx(1.0, abs=1e-12)
    assert found.keys() <= wanted.keys()  # so always ``drawn`` places, never one twice
    for places, share in wanted.items():
        assert_binomial(found[places], draws, share)


def test_a_token_that_occurs_twice_is_drawn_twice_as_often():
    m, weight = weighting(0.7, 0.2)
    ids, draws = np.array([7, 7, 7, 8, 6]), 5000
    found = sets_drawn(m, ids, draws)
    total = 3 * weight[7] + weight[8] + weight[6]
    assert_binomial(sum(found[(i,)] for i in range(3)), draws, 3 * weight[7] / total)
    assert_binomial(found[(4,)], draws, weight[6] / total)


def test_special_tokens_have_no_weight_and_counts_are_not_changed():
    counts = np.full(10, 100)
    m = masker(counts)
    assert (m.weights_V[:5] == 0).all() and (m.weights_V[5:] > 0).all()
    assert (counts == 100).all()


# --- mistakes ------------------------------------------------------------------------------------------------------


def test_a_tokenizer_without_a_mask_token():
    with pytest.raises(DataError, match="mask token"):
        Masker.from_counts(np.ones(9), {"pad": 0}, fraction=0.15, smoothing=0.7, mask_share=0.8, keep_share=0.1)


def test_a_batch_of_special_tokens():
    with pytest.raises(DataError, match="2 of 8 tokens .* only 1 are ordinary"):
        masker().mask(np.array([2, 3, 0, 0, 0, 0, 0, 10]), rng())
