"""The loops of the fingerprint in numpy. ``fingerprint.py`` says what they compute."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_WORD = 1 << 64
_M1 = np.uint64(0xFF51AFD7ED558CCD)
_M2 = np.uint64(0xC4CEB9FE1A85EC53)
_SHIFT = np.uint64(33)
_HALF = np.uint64(32)
_BLOCK = 16_384
"""rows hashed at once: small enough that the temporaries stay in the processor's cache"""

Words = NDArray[np.uint64]


def _mix(words: Words, scratch: Words) -> None:
    """The mix function of the definition, in place."""
    np.right_shift(words, _SHIFT, out=scratch)
    np.bitwise_xor(words, scratch, out=words)
    np.multiply(words, _M1, out=words)
    np.right_shift(words, _SHIFT, out=scratch)
    np.bitwise_xor(words, scratch, out=words)
    np.multiply(words, _M2, out=words)
    np.right_shift(words, _SHIFT, out=scratch)
    np.bitwise_xor(words, scratch, out=words)


def _total(words: Words, scratch: Words) -> int:
    """The exact sum of fewer than 2^32 words, from their sum modulo 2^64 and the sum of their high halves."""
    np.right_shift(words, _HALF, out=scratch)
    high = int(scratch.sum())
    low = (int(words.sum()) - (high << 32)) % _WORD
    return (high << 32) + low


def mix_rows(times: Words, low: Words, high: Words) -> None:
    """``low`` and ``high`` words of S, one for each row, become R0 and R1 of the definition, in place."""
    scratch = np.empty(min(_BLOCK, len(times)), dtype=np.uint64)
    np.bitwise_xor(low, times, out=low)
    np.add(high, times, out=high)
    for start in range(0, len(times), _BLOCK):
        block = slice(start, start + _BLOCK)
        size = len(low[block])
        _mix(low[block], scratch[:size])
        _mix(high[block], scratch[:size])


def sum_column(low: Words, high: Words, values: tuple[Words, Words], seed: Words) -> tuple[int, int]:
    """Low and high word of the sum of all hashes of one column without nulls, modulo 2^128."""
    size = min(_BLOCK, len(low))
    words, scratch = np.empty(size, dtype=np.uint64), np.empty(size, dtype=np.uint64)
    total_low = total_high = 0
    for start in range(0, len(low), _BLOCK):
        block = slice(start, start + _BLOCK)
        used = len(low[block])
        mixed, spare = words[:used], scratch[:used]
        np.bitwise_xor(low[block], values[0][block], out=mixed)
        np.bitwise_xor(mixed, seed[0], out=mixed)
        _mix(mixed, spare)
        total_low += _total(mixed, spare)
        np.add(high[block], values[1][block], out=mixed)
        np.add(mixed, seed[1], out=mixed)
        _mix(mixed, spare)
        total_high += int(mixed.sum())
    return total_low % _WORD, (total_high + total_low // _WORD) % _WORD
