"""A shuffle that is computed, not stored: the place of any one number, without the others.

A Feistel network (Luby and Rackoff 1988) over the numbers below n, written as pairs (left, right) of an a x b grid with
a b >= n. Each round adds a keyed hash of one half to the other, modulo its size, which can be undone, so all rounds
together are a bijection of the grid. A number that lands beyond n is sent through again until it lands below
(cycle-walking, Black and Rogaway 2002); the grid exceeds n by less than a, so that is rare.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 8  # twice what pseudo-randomness needs: grids of a few numbers mix slowly
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(x: np.ndarray | np.uint64) -> np.ndarray:
    """A bijection of 64 bits in which each input bit flips each output bit half the time (splitmix64's finaliser)."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def subkey(key: np.ndarray | int, number: np.ndarray | int) -> np.ndarray:
    """A key for each ``number`` under ``key``; both broadcast."""
    key, number = np.asarray(key, dtype=np.uint64), np.asarray(number).astype(np.uint64)
    with np.errstate(over="ignore"):
        return mix(key + (number + np.uint64(1)) * _GOLDEN)


def permute(places: np.ndarray, size: np.ndarray | int, key: np.ndarray | int) -> np.ndarray:
    """Where a shuffle of the numbers below ``size``, chosen by ``key``, puts ``places``; int64, all three broadcast.

    For every size and key a bijection; sizes up to 2^62. Every place must be at least 0 and below its size.
    """
    places, size, key = np.broadcast_arrays(np.asarray(places, np.int64), np.asarray(size, np.int64), key)
    n, keys = size.ravel().astype(np.uint64), key.ravel().astype(np.uint64)
    a = np.maximum(np.ceil(np.sqrt(n)), 1).astype(np.uint64)
    b = (n + a - np.uint64(1)) // a
    x = _rounds(places.ravel().astype(np.uint64), a, b, keys)
    while (beyond := np.flatnonzero(x >= n)).size:
        x[beyond] = _rounds(x[beyond], a[beyond], b[beyond], keys[beyond])
    return x.astype(np.int64).reshape(places.shape)


def _rounds(x: np.ndarray, a: np.ndarray, b: np.ndarray, key: np.ndarray) -> np.ndarray:
    left, right = x // b, x % b
    for number in range(0, ROUNDS, 2):
        left = (left + mix(right ^ subkey(key, number)) % a) % a
        right = (right + mix(left ^ subkey(key, number + 1)) % b) % b
    return left * b + right
