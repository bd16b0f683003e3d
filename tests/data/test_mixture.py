"""Mixtures: shares to the exact micro-batch, every store through its own epochs, any number without the others."""

from __future__ import annotations

import decimal
from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import SPECIAL, build, texts

from distil.data.masking import Masker
from distil.data.mixture import Mixture, powers
from distil.data.store import Store
from distil.errors import DataError

BUDGET = 64


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> list[Store]:
    folder = tmp_path_factory.mktemp("stores")
    return [build(folder / f"s{i}", texts(count, seed=i)) for i, count in enumerate((60, 25, 140))]


def mixture(stores: list[Store], weights: list[float] | None, seed: int = 3, exponent: float = 1.0) -> Mixture:
    return Mixture(stores, weights, BUDGET, seed, exponent)


def counted(mixed: Mixture, numbers: int) -> list[int]:
    """How many of the first so many numbers each store has; its own stream must be read without a gap."""
    taken = [0] * len(mixed.stores)
    for number in range(numbers):
        store, own = mixed.locate(number)
        assert own == taken[store]
        taken[store] += 1
        assert abs(taken[0] - mixed.shares[0] * (number + 1)) < 1  # never farther from its share than rounding
        for share, count in zip(mixed.shares, taken, strict=True):
            assert abs(count - share * (number + 1)) < 2  # than a peel of each can round
    return taken


def test_one_store_is_its_plan(stores):
    one = mixture(stores[:1], None)
    for number in range(2 * one.micro_batches):
        assert one.locate(number) == (0, number)
        ids, lengths = one.gather(number)
        wanted = stores[0].gather(stores[0].at(one.plans[0].places(number)))
        assert np.array_equal(ids, wanted[0]) and np.array_equal(lengths, wanted[1])
        assert one.tokens(number) == len(ids) and one.sequences(number) == len(lengths)
    assert np.array_equal(one.token_counts, stores[0].token_counts)
    assert one.tokens_an_epoch == stores[0].tokens


@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.integers(1, 99), min_size=3, max_size=3), data=st.data())
def test_shares_are_exact_at_every_point(stores, weights, data):
    mixed = mixture(stores, [weight / 100 for weight in weights])
    assert mixed.shares == tuple(Fraction(weight, sum(weights)) for weight in weights)
    counted(mixed, 400)
    number = data.draw(st.integers(0, 10**15))
    store, own = mixed.locate(number)
    assert abs(own - mixed.shares[store] * number) < 2  # and far along without the numbers before


def test_without_weights_an_epoch_is_one_of_each(stores):
    mixed = mixture(stores, None)
    assert mixed.micro_batches == sum(plan.micro_batches for plan in mixed.plans)
    for epoch in (0, 1):
        seen = Counter()
        for number in range(epoch * mixed.micro_batches, (epoch + 1) * mixed.micro_batches):
            store, own = mixed.locate(number)
            assert own // mixed.plans[store].micro_batches == epoch
            seen.update((store, place) for place in mixed.plans[store].places(own).tolist())
        assert set(seen.values()) == {1} and len(seen) == sum(map(len, stores))
    assert mixed.tokens_an_epoch == sum(store.tokens for store in stores)
    assert np.array_equal(mixed.token_counts, sum(store.token_counts for store in stores))


def test_powers_are_those_of_multilingual_bert():
    # English has 1000 times the text of Icelandic, and is seen some 100 times as often (multilingual.md).
    assert powers([1000, 1], 0.7) == [Fraction("125.892541"), 1]  # 10^2.1 = 125.8925412
    assert powers([100, 10**12], 0.5) == [10, 10**6]
    assert powers([10**10 + 1, 3], 1.0) == [10**10 + 1, 3]  # exact, not to nine digits
    assert powers([7, 10**10], 0.0) == [1, 1]


def test_powers_are_the_same_whatever_decimal_is_set_to():
    wanted = [Fraction("10401.2857"), Fraction("2.15766928")]  # e^(0.7 ln size) by bc
    with decimal.localcontext(prec=3, rounding=decimal.ROUND_UP):
        assert powers([547_893, 3], 0.7) == wanted


def test_an_exponent_smooths_the_shares(stores):
    sizes = np.array([plan.micro_batches for plan in mixture(stores, None).plans], dtype=np.float64)
    shares = {exponent: mixture(stores, None, exponent=exponent).shares for exponent in (1.0, 0.7, 0.0)}
    assert shares[1.0] == tuple(Fraction(int(size), int(sizes.sum())) for size in sizes) == mixture(stores, None).shares
    assert np.allclose(np.array(shares[0.7], dtype=np.float64), sizes**0.7 / (sizes**0.7).sum(), rtol=1e-8, atol=0)
    assert shares[0.0] == (Fraction(1, 3),) * 3
    for each in shares.values():
        assert sum(each) == 1
    small, large = int(sizes.argmin()), int(sizes.argmax())
    assert shares[1.0][small] < shares[0.7][small] < Fraction(1, 3) < shares[0.7][large] < shares[1.0][large]


@settings(max_examples=60, deadline=None)
@given(exponent=st.floats(0, 1), number=st.integers(0, 10**15))
def test_smoothed_shares_are_exact_at_every_point(stores, exponent, number):
    mixed, again = mixture(stores, None, exponent=exponent), mixture(stores, None, exponent=exponent)
    counted(mixed, 400)
    store, own = mixed.locate(number)
    assert abs(own - mixed.shares[store] * number) < 2
    assert mixed.shares == again.shares and mixed.fingerprint == again.fingerprint
    assert again.locate(number) == (store, own)


def test_an_epoch_of_smoothed_shares_is_as_long_as_all_stores(stores):
    mixed = mixture(stores, None, exponent=0.5)
    assert mixed.micro_batches == mixture(stores, None).micro_batches
    found = counted(mixed, mixed.micro_batches)
    passes = [count / plan.micro_batches for count, plan in zip(found, mixed.plans, strict=True)]
    assert passes[1] > 1.3 > 1 > passes[2]  # the smallest more often than once, the largest not all of it
    exact = [float(s * mixed.micro_batches / p.micro_batches) for s, p in zip(mixed.shares, mixed.plans, strict=True)]
    wanted = sum(n * store.token_counts for n, store in zip(exact, stores, strict=True))
    assert np.allclose(mixed.token_counts, wanted, rtol=1e-12)  # what decides the masks is what training sees
    assert mixed.tokens_an_epoch == pytest.approx(float(wanted.sum()), rel=1e-12)


def test_stores_take_turns(stores):
    # Seven of ten from the first: never more than three in a row are of it, and never two of the others.
    mixed = mixture(stores[:2], [0.7, 0.3])
    found = [mixed.locate(number)[0] for number in range(1000)]
    assert found.count(0) == 700
    runs = "".join(map(str, found))
    assert "0000" not in runs and "11" not in runs


def test_weights_count_micro_batches_whatever_the_stores_hold(stores):
    mixed = mixture(stores[:2], [1, 9])
    plans = mixed.plans
    passes = [mixed.micro_batches * share / plan.micro_batches for share, plan in zip(mixed.shares, plans, strict=True)]
    wanted = sum(float(n) * store.token_counts for n, store in zip(passes, stores[:2], strict=True))
    assert np.allclose(mixed.token_counts, wanted, rtol=1e-12)  # what decides the masks is what training sees
    assert passes[1] > 2 > 1 > passes[0]
    assert mixed.tokens_an_epoch == pytest.approx(float(wanted.sum()), rel=1e-12)
    Masker.from_counts(mixed.token_counts, SPECIAL, fraction=0.15, smoothing=0.7, mask_share=0.8, keep_share=0.1)


def test_the_same_store_twice_has_two_orders(stores):
    mixed = mixture([stores[0], stores[0]], [0.5, 0.5])
    one, other = ([tuple(plan.places(k)) for k in range(plan.micro_batches)] for plan in mixed.plans)
    assert len(set(one) & set(other)) < 0.2 * len(one)


def test_what_identifies_a_mixture(stores):
    prints = [
        mixture(stores[:1], None).fingerprint, mixture(stores[:2], None).fingerprint,
        mixture(stores[:2], [0.5, 0.5]).fingerprint, mixture(stores[1::-1], [0.5, 0.5]).fingerprint,
    ]  # fmt: skip
    assert len(set(map(tuple, prints))) == 4
    assert prints[0] == [stores[0].fingerprint]
    assert mixture(stores[:2], [7, 3]).fingerprint == mixture(stores[:2], [0.7, 0.3]).fingerprint


def test_a_sequence_beyond_the_budget_is_refused(stores):
    with pytest.raises(DataError, match="longest sequence has .* a micro-batch holds 8"):
        Mixture(stores, None, 8, 1)


def test_sizes_that_are_not_the_sidecars_are_found_when_read(tmp_path):
    # The outer sizes exchanged in .idx, offsets mended to match: every check of one file by itself passes.
    store = build(tmp_path / "s", [np.full(10, 7), np.full(20, 8), np.full(30, 9)])
    path = Path(f"{store.prefix}.idx")
    raw = bytearray(path.read_bytes())
    raw[34:46] = np.array([30, 20, 10], "<i4").tobytes()
    raw[46:70] = np.array([0, 60, 100], "<i8").tobytes()
    path.write_bytes(raw)
    broken = Mixture([Store.open(store.prefix)], None, 30, 1)
    with pytest.raises(DataError, match=r"s: damaged: sizes in \.idx or order in \.order"):
        for number in range(broken.micro_batches):
            broken.gather(number)
