"""How numbers stand in TSM bytes: big-endian words, varints, and simple8b words of small numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt
from numba.cpython.unsafe import numbers

from influxdb_backup.jit import kernel

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

SIMPLE8B_MAX = np.uint64((1 << 60) - 1)
"""The largest number that simple8b can hold."""

_COUNTS = np.array([60, 30, 20, 15, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1], np.int64)
"""how many numbers a word of the selectors 2 to 15 holds"""
_WIDTHS = np.array([1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 60], np.int64)
"""and in how many bits each"""
_FITTING = np.array(
    [max(c for c, w in zip(_COUNTS, _WIDTHS, strict=True) if w >= bits) for bits in range(61)], np.int64
)
"""how many numbers of this many bits one word can hold"""
_CODE = np.array([min(i for i, c in enumerate(_COUNTS) if c <= max(n, 1)) for n in range(61)], np.int64)
"""the position in ``_COUNTS`` of the fullest word for this many fitting numbers"""

_leading_zeros = cast("Callable[[np.uint64], np.uint64]", numbers.leading_zeros)
_trailing_zeros = cast("Callable[[np.uint64], np.uint64]", numbers.trailing_zeros)
"""one instruction each"""

_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_SEVEN = np.uint64(7)
_LOW = np.uint64(0x7F)
_MORE = np.uint64(0x80)
_BYTE = np.uint64(0xFF)


@kernel
def put_u64(out: U8, at: int, value: np.uint64) -> int:
    """Writes eight bytes, most significant first; returns where the next byte stands."""
    for position in range(8):
        out[at + position] = np.uint8((value >> np.uint64(56 - 8 * position)) & _BYTE)
    return at + 8


@kernel
def put_uvarint(out: U8, at: int, value: np.uint64) -> int:
    """Writes one to ten bytes of seven bits, least significant first; returns where the next byte stands."""
    while value > _LOW:
        out[at] = np.uint8((value & _LOW) | _MORE)
        value >>= _SEVEN
        at += 1
    out[at] = np.uint8(value)
    return at + 1


@kernel
def bit_length(value: np.uint64) -> int:
    """The number of bits up to the highest one that is set; 0 for 0."""
    return 64 - int(np.int64(_leading_zeros(value)))


@kernel
def trailing_zeros(value: np.uint64) -> int:
    """The number of zero bits below the lowest one that is set; 64 for 0."""
    return int(np.int64(_trailing_zeros(value)))


@kernel
def put_simple8b(out: U8, at: int, numbers: U64, start: int, stop: int) -> int:
    """
    Writes ``numbers[start:stop]``, all at most SIMPLE8B_MAX, as the server's compactor packs them.

    Runs of 240 and of 120 ones have words of their own; else each word holds as many of the next numbers as
    the widest of them lets it (run: equal to files that 1.12.4 and 2.9.1 compacted).
    """
    while start < stop:
        left = stop - start
        if left >= 120 and numbers[start] == _ONE:
            longest = 240 if left >= 240 else 120
            ones = 1
            while ones < longest and numbers[start + ones] == _ONE:
                ones += 1
            if ones >= 120:
                at = put_u64(out, at, _ZERO if ones == 240 else np.uint64(1 << 60))
                start += 240 if ones == 240 else 120
                continue
        taken = 0
        widest = _ZERO
        limit = min(left, 60)
        while taken < limit:
            together = widest | numbers[start + taken]
            if together != widest and _FITTING[bit_length(together)] < taken + 1:
                break
            widest = together
            taken += 1
            limit = min(limit, _FITTING[bit_length(widest)])
        code = _CODE[taken]
        count, width = _COUNTS[code], _WIDTHS[code]
        word = np.uint64(code + 2) << np.uint64(60)
        for position in range(count):
            word |= numbers[start + position] << np.uint64(position * width)
        at = put_u64(out, at, word)
        start += count
    return at
