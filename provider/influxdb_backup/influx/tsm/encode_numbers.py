"""Time, integer, unsigned, float and boolean sections of a block, as the server's compactor writes them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influxdb_backup.influx.tsm.encode_words import (
    SIMPLE8B_MAX,
    bit_length,
    put_simple8b,
    put_u64,
    put_uvarint,
    trailing_zeros,
)
from influxdb_backup.jit import kernel

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_NAN = np.uint64(0x7FF8000000000001)
"""ends the floats of a block"""
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TEN = np.uint64(10)
_SIGN = np.uint64(63)
_MASK6 = np.uint64(0x3F)
_LARGEST_SCALE = 12


@kernel
def put_raw(out: U8, at: int, words: U64, count: int) -> int:
    """An uncompressed section: the header 0 and the words."""
    out[at] = 0
    at += 1
    for position in range(count):
        at = put_u64(out, at, words[position])
    return at


@kernel
def _scale_of(value: np.uint64, scale: int, divisor: np.uint64) -> tuple[int, np.uint64]:
    while scale > 0 and value % divisor != _ZERO:
        divisor //= _TEN
        scale -= 1
    return scale, divisor


@kernel
def put_times(out: U8, at: int, times: I64, count: int, deltas: U64) -> int:
    """The time section of ``times[:count]``, ascending; ``deltas`` is space for as many numbers."""
    deltas[0] = np.uint64(times[0])
    largest = _ZERO
    equal = True
    for position in range(1, count):
        delta = np.uint64(times[position]) - np.uint64(times[position - 1])
        deltas[position] = delta
        largest = max(largest, delta)
        equal = equal and delta == deltas[1]
    scale, divisor = _LARGEST_SCALE, np.uint64(10**12)
    if count > 1 and equal:
        scale, divisor = _scale_of(deltas[1], scale, divisor)
        out[at] = np.uint8(0x20 | scale)
        at = put_u64(out, at + 1, deltas[0])
        at = put_uvarint(out, at, deltas[1] // divisor)
        return put_uvarint(out, at, np.uint64(count))
    if largest > SIMPLE8B_MAX:
        return put_raw(out, at, deltas, count)
    for position in range(1, count):
        if scale == 0:
            break
        scale, divisor = _scale_of(deltas[position], scale, divisor)
    if scale > 0:
        for position in range(1, count):
            deltas[position] //= divisor
    out[at] = np.uint8(0x10 | scale)
    at = put_u64(out, at + 1, deltas[0])
    return put_simple8b(out, at, deltas, 1, count)


@kernel
def put_integers(out: U8, at: int, values: U64, count: int, deltas: U64) -> int:
    """The value section of integers or unsigned, given as bit patterns; ``deltas`` is space for as many."""
    largest = _ZERO
    equal = True
    before = _ZERO
    for position in range(count):
        delta = values[position] - before
        before = values[position]
        zigzag = (delta << _ONE) ^ (_ZERO - (delta >> _SIGN))
        deltas[position] = zigzag
        if position > 0:
            largest = max(largest, zigzag)
            equal = equal and zigzag == deltas[1]
    if count > 2 and equal:
        out[at] = 0x20
        at = put_u64(out, at + 1, deltas[0])
        at = put_uvarint(out, at, deltas[1])
        return put_uvarint(out, at, np.uint64(count - 1))
    if largest > SIMPLE8B_MAX:
        return put_raw(out, at, deltas, count)
    out[at] = 0x10
    at = put_u64(out, at + 1, deltas[0])
    return put_simple8b(out, at, deltas, 1, count)


@kernel
def put_booleans(out: U8, at: int, values: U64, count: int) -> int:
    """The value section of booleans (0 or 1): their number and a bit each, first value in the highest bit."""
    out[at] = 0x10
    at = put_uvarint(out, at + 1, np.uint64(count))
    byte = 0
    for position in range(count):
        byte = (byte << 1) | int(np.int64(values[position]))
        if position & 7 == 7:
            out[at] = np.uint8(byte)
            at += 1
            byte = 0
    if count & 7:
        out[at] = np.uint8(byte << (8 - (count & 7)))
        at += 1
    return at


@kernel
def _push(out: U8, at: int, word: np.uint64, used: int, value: np.uint64, bits: int) -> tuple[int, np.uint64, int]:
    """Appends the low ``bits`` bits of ``value`` (no higher one set) to the bits that are not written yet."""
    free = 64 - used
    if bits < free:
        return at, word | (value << np.uint64(free - bits)), used + bits
    over = bits - free
    at = put_u64(out, at, word | (value >> np.uint64(over)))
    return at, (value << np.uint64(64 - over)) if over else _ZERO, over


@kernel
def put_floats(out: U8, at: int, values: U64, count: int) -> int:
    """
    The value section of floats, given as bit patterns, none of them NaN: each as its difference from the one before.

    The number of leading zeros is cut to five bits (32 counts as 0), which costs some space and is what the servers do.
    """
    out[at] = 0x10
    at = put_u64(out, at + 1, values[0])
    previous = values[0]
    kept_leading, kept_trailing = 65, 65
    word, used = _ZERO, 0
    for position in range(1, count + 1):
        current = values[position] if position < count else _NAN
        change = current ^ previous
        previous = current
        if change == _ZERO:
            at, word, used = _push(out, at, word, used, _ZERO, 1)
            continue
        leading = (64 - bit_length(change)) & 0x1F
        trailing = trailing_zeros(change)
        header, length = np.uint64(2), 2
        if leading < kept_leading or trailing < kept_trailing:
            kept_leading, kept_trailing = leading, trailing
            size = np.uint64(64 - leading - trailing) & _MASK6
            header, length = (np.uint64(3) << np.uint64(11)) | (np.uint64(leading) << np.uint64(6)) | size, 13
        significant = 64 - kept_leading - kept_trailing
        change >>= np.uint64(kept_trailing)
        if length + significant <= 64:
            change |= header << np.uint64(significant)
            significant += length
        else:
            at, word, used = _push(out, at, word, used, header, length)
        at, word, used = _push(out, at, word, used, change, significant)
    for position in range((used + 7) >> 3):
        out[at] = np.uint8((word >> np.uint64(56 - 8 * position)) & np.uint64(0xFF))
        at += 1
    return at
