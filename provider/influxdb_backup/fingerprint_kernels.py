"""Compiled loops of the fingerprint; ``fingerprint.py`` says what they compute. Needs numba."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from influxdb_backup.jit import kernel

Words = NDArray[np.uint64]


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
    """Low and high word of the sum of all hashes of one column without nulls, modulo 2^128."""
    total_low = np.uint64(0)
    total_high = np.uint64(0)
    for row in range(len(low)):
        word = mix(low[row] ^ seed[0] ^ values[0][row])
        total_low += word
        if total_low < word:
            total_high += np.uint64(1)
        total_high += mix(high[row] + seed[1] + values[1][row])
    return total_low, total_high


def exercise() -> None:
    """Runs every loop of this module once, which compiles it."""
    low, high, times = np.ones(1, np.uint64), np.ones(1, np.uint64), np.zeros(1, np.uint64)
    times.flags.writeable = False
    mix_rows(times, low, high)
    sum_column(low, high, (times, times), np.zeros(2, np.uint64))
