"""
Time and value sections of a block as arrays; the inverse of ``encode_numbers``, for every encoding of the servers.

Each kernel returns how many values it read, which must be exactly what the block holds, or -1 for bytes that no server
writes. Output stands at ``first`` in its array and never goes beyond ``limit``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influxdb_backup.influx.tsm.decode_words import count_simple8b, get_simple8b, get_u64, get_uvarint
from influxdb_backup.jit import kernel

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_NAN = np.uint64(0x7FF8000000000001)
"""ends the floats of a block"""
_ZERO = np.uint64(0)
_ONE = np.uint64(1)
_TWO = np.uint64(2)
_LEFT_BITS = 55
"""of a window behind the two that say that the place of the change is as before"""
_LARGEST_SCALE = 12
_LARGEST_COUNT = 1 << 20
"""more points than any block holds: the servers make 1,000 and in aggressive compactions 10,000"""


@kernel
def count_times(data: U8, at: int, stop: int) -> int:
    """How many times a time section holds."""
    if at >= stop:
        return -1
    encoding = data[at] >> 4
    count = -1
    if encoding == 0:
        if (stop - at - 1) % 8 == 0:
            count = (stop - at - 1) // 8
    elif encoding == 1:
        if stop - at >= 9:
            more = count_simple8b(data, at + 9, stop)
            if more >= 0:
                count = 1 + more
    elif encoding == 2 and stop - at >= 9:
        place, _ = get_uvarint(data, at + 9, stop)
        if place >= 0:
            place, total = get_uvarint(data, place, stop)
            if place == stop and total <= np.uint64(_LARGEST_COUNT):
                count = int(np.int64(total))
    return count if 0 < count <= _LARGEST_COUNT else -1


@kernel
def _scale(data: U8, at: int) -> np.uint64:
    """The factor of a time section's numbers; 0 when its header names none."""
    exponent = int(np.int64(data[at] & 0xF))
    if exponent > _LARGEST_SCALE:
        return _ZERO
    factor = _ONE
    for _ in range(exponent):
        factor *= np.uint64(10)
    return factor


@kernel
def get_times(data: U8, at: int, stop: int, out: U64, first: int, limit: int) -> int:
    """The times of a section, two's complement."""
    count = count_times(data, at, stop)
    factor = _scale(data, at)
    if count < 0 or first + count > limit or factor == _ZERO:
        return -1
    encoding = data[at] >> 4
    if encoding == 0:
        value = _ZERO
        for position in range(count):
            value += get_u64(data, at + 1 + 8 * position)
            out[first + position] = value
        return count
    value = get_u64(data, at + 1)
    if encoding == 2:
        place, delta = get_uvarint(data, at + 9, stop)
        for position in range(count):
            out[first + position] = value
            value += delta * factor
        return count if place >= 0 else -1
    if get_simple8b(data, at + 9, stop, out, first + 1, limit) != first + count:
        return -1
    out[first] = value
    for position in range(1, count):
        value += out[first + position] * factor
        out[first + position] = value
    return count


@kernel
def _unzigzag(value: np.uint64) -> np.uint64:
    return (value >> _ONE) ^ (_ZERO - (value & _ONE))


@kernel
def get_integers(data: U8, at: int, stop: int, out: U64, first: int, limit: int) -> int:
    """The integers or unsigned of a section as bit patterns."""
    if at >= stop:
        return -1
    encoding = data[at] >> 4
    count = 0
    if encoding == 0:
        if (stop - at - 1) % 8 != 0 or first + (stop - at - 1) // 8 > limit:
            return -1
        count = (stop - at - 1) // 8
        for position in range(count):
            out[first + position] = get_u64(data, at + 1 + 8 * position)
    elif encoding == 1:
        if stop - at < 9 or first >= limit:
            return -1
        out[first] = get_u64(data, at + 1)
        count = get_simple8b(data, at + 9, stop, out, first + 1, limit) - first
    elif encoding == 2:
        if stop - at < 9:
            return -1
        place, delta = get_uvarint(data, at + 9, stop)
        if place < 0:
            return -1
        place, repeats = get_uvarint(data, place, stop)
        if place != stop or first >= limit or repeats >= np.uint64(limit - first):
            return -1
        count = int(np.int64(repeats)) + 1
        out[first] = get_u64(data, at + 1)
        for position in range(1, count):
            out[first + position] = delta
    else:
        return -1
    value = _ZERO
    for position in range(count):
        value += _unzigzag(out[first + position])
        out[first + position] = value
    return count if count > 0 else -1


@kernel
def get_booleans(data: U8, at: int, stop: int, out: U64, first: int, limit: int) -> int:
    """The booleans of a section as 0 and 1."""
    if at >= stop or data[at] >> 4 != 1:
        return -1
    place, total = get_uvarint(data, at + 1, stop)
    if place < 0 or total > np.uint64(limit - first):
        return -1
    count = int(np.int64(total))
    if (count + 7) // 8 != stop - place:
        return -1
    for position in range(count):
        out[first + position] = np.uint64((data[place + (position >> 3)] >> (7 - (position & 7))) & 1)
    return count


@kernel
def _bits(data: U8, start: int, stop: int, place: int, count: int) -> np.uint64:
    """``count`` (0 to 64) bits from bit ``place`` on, counted from ``start``; bits beyond ``stop`` are 0."""
    value = _ZERO
    taken = 0
    while taken < count:
        at = start + (place >> 3)
        free = 8 - (place & 7)
        step = min(free, count - taken)
        byte = np.uint64(data[at]) if at < stop else _ZERO
        part = (byte >> np.uint64(free - step)) & ((_ONE << np.uint64(step)) - _ONE)
        value = (value << np.uint64(step)) | part
        taken += step
        place += step
    return value


@kernel
def _window(data: U8, at: int, stop: int, place: int) -> np.uint64:
    """The 57 or more bits from bit ``place`` (counted from ``at``) on, left-aligned in a word; 0 beyond ``stop``."""
    byte = at + (place >> 3)
    if byte + 8 <= stop:
        return get_u64(data, byte) << np.uint64(place & 7)
    return _bits(data, at, stop, place, 57) << np.uint64(7)


@kernel
def get_floats(data: U8, at: int, stop: int, out: U64, first: int, limit: int) -> int:
    """The floats of a section as bit patterns."""
    if stop - at < 9 or data[at] >> 4 != 1:
        return -1
    value = get_u64(data, at + 1)
    start = at + 9
    end = 8 * (stop - start)
    place = 0
    count = 0
    size, trailing = 0, 0
    known = False
    while value != _NAN:
        if first + count >= limit:
            return -1
        out[first + count] = value
        count += 1
        if place >= end:
            return -1
        head = _window(data, start, stop, place)
        if head >> np.uint64(63) == _ZERO:
            place += 1
            continue
        if (head >> np.uint64(62)) & _ONE == _ZERO:
            place += 2
            if not known:
                return -1
            if size <= _LEFT_BITS and place + size <= end:
                value ^= ((head << _TWO) >> np.uint64(64 - size)) << np.uint64(trailing)
                place += size
                continue
        else:
            leading = int(np.int64((head >> np.uint64(57)) & np.uint64(0x1F)))
            size = int(np.int64((head >> np.uint64(51)) & np.uint64(0x3F)))
            if size == 0:
                size = 64
            place += 13
            trailing = 64 - leading - size
            if trailing < 0:
                return -1
            known = True
        if place + size > end:
            return -1
        bits = _window(data, start, stop, place)
        change = bits >> np.uint64(64 - size) if size <= 57 else _bits(data, start, stop, place, size)
        place += size
        value ^= change << np.uint64(trailing)
    return count if end - place < 8 else -1
