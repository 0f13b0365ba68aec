"""Compiled loops of the fingerprint; ``fingerprint.py`` says what they compute. Needs numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from influxdb_backup.jit import kernel

Words = NDArray[np.uint64]

_HALF = np.uint64(32)
_LOWER = np.uint64(2**32 - 1)


@kernel
def mix(word: np.uint64) -> np.uint64:
    """The mix function of the definition."""
    word ^= word >> np.uint64(33)
    word *= np.uint64(0xFF51AFD7ED558CCD)
    word ^= word >> np.uint64(33)
    word *= np.uint64(0xC4CEB9FE1A85EC53)
    return word ^ (word >> np.uint64(33))


@kernel
def mix_rows(times: Words, low: Words, high: Words) -> None:
    """``low`` and ``high`` words of each row's series become R0 and R1 of the definition."""
    for row in range(len(times)):
        low[row] = mix(low[row] ^ times[row])
        high[row] = mix(high[row] + times[row])


@kernel
def sum_column(low: Words, high: Words, values: tuple[Words, Words], seed: Words) -> tuple[np.uint64, np.uint64]:
    """Low and high word of the sum of all hashes of one column without nulls, modulo 2^128; of fewer than 2^32 rows."""
    total_low = np.uint64(0)
    upper = np.uint64(0)
    total_high = np.uint64(0)
    for row in range(len(low)):  # halves instead of carries: the compiler takes several rows at a time
        word = mix(low[row] ^ seed[0] ^ values[0][row])
        total_low += word & _LOWER
        upper += word >> _HALF
        total_high += mix(high[row] + seed[1] + values[1][row])
    upper += total_low >> _HALF
    return (upper << _HALF) | (total_low & _LOWER), total_high + (upper >> _HALF)


def exercise() -> None:
    """Runs every loop of this module once, which compiles it."""
    low, high, times = np.ones(1, np.uint64), np.ones(1, np.uint64), np.zeros(1, np.uint64)
    times.flags.writeable = False
    mix_rows(times, low, high)
    sum_column(low, high, (times, times), np.zeros(2, np.uint64))
