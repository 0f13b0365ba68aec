"""How numbers stand in TSM bytes: big-endian words, varints, and simple8b words of small numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import numpy.typing as npt
from numba.cpython.unsafe import numbers

from influxdb_backup.jit import inlined, kernel

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

SIMPLE8B_MAX = np.uint64((1 << 60) - 1)
"""The largest number that simple8b can hold."""

_COUNTS = np.array([60, 30, 20, 15, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1], np.int64)
"""how many numbers a word of the selectors 2 to 15 holds"""
_WIDTHS = np.array([1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 60], np.int64)
"""and in how many bits each"""
_LAST = len(_COUNTS) - 1

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


@inlined
def _put_word(out: U8, at: int, numbers: U64, start: int, code: int) -> int:
    """Packs the next numbers as this position in ``_COUNTS`` says."""
    width = np.uint64(_WIDTHS[code])
    word, shift = np.uint64(code + 2) << np.uint64(60), _ZERO
    for position in range(start, start + _COUNTS[code]):
        word |= numbers[position] << shift
        shift += width
    return put_u64(out, at, word)


@inlined
def _fits(numbers: U64, start: int, stop: int, code: int) -> bool:
    """Whether a word of this position in ``_COUNTS`` can hold the next numbers."""
    end = start + _COUNTS[code]
    if end > stop:
        return False
    widest = _ZERO
    for position in range(start, end):
        widest |= numbers[position]
    return bool(bit_length(widest) <= _WIDTHS[code])


@kernel
def put_simple8b(out: U8, at: int, numbers: U64, start: int, stop: int) -> int:
    """
    Writes ``numbers[start:stop]``, all at most SIMPLE8B_MAX, as the server's compactor packs them.

    Runs of 240 and of 120 ones have words of their own; else each word holds as many of the next numbers as
    the widest of them lets it (run: equal to files that 1.12.4 and 2.9.1 compacted). It is looked for from the word
    before on: where one cannot hold so many, none that holds more can, since it has less room for each.
    """
    code = 0
    while start < stop:
        if stop - start >= 120 and numbers[start] == _ONE:
            longest = 240 if stop - start >= 240 else 120
            ones = 1
            while ones < longest and numbers[start + ones] == _ONE:
                ones += 1
            if ones >= 120:
                at = put_u64(out, at, _ZERO if ones == 240 else np.uint64(1 << 60))
                start += 240 if ones == 240 else 120
                continue
        if _fits(numbers, start, stop, code):
            while code > 0 and _fits(numbers, start, stop, code - 1):
                code -= 1
        else:
            code += 1
            while code < _LAST and not _fits(numbers, start, stop, code):
                code += 1
        at = _put_word(out, at, numbers, start, code)
        start += _COUNTS[code]
    return at
