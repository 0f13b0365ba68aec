"""How numbers are read from TSM bytes: nothing beyond the caller's ``stop``. -1 says that they end too soon."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influxdb_backup.jit import kernel

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]

_COUNTS = np.array([240, 120, 60, 30, 20, 15, 12, 10, 8, 7, 6, 5, 4, 3, 2, 1], np.int64)
"""how many numbers a word of each selector holds"""
_WIDTHS = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 30, 60], np.int64)
"""and in how many bits each; 0: all are 1"""
_ONE = np.uint64(1)
_LONGEST_VARINT = 10


@kernel
def get_u64(data: U8, at: int) -> np.uint64:
    """Eight bytes, most significant first; the caller has bounded them."""
    value = np.uint64(0)
    for position in range(8):
        value = (value << np.uint64(8)) | np.uint64(data[at + position])
    return value


@kernel
def get_u32(data: U8, at: int) -> int:
    """Four bytes, most significant first; the caller has bounded them."""
    value = 0
    for position in range(4):
        value = (value << 8) | int(np.int64(data[at + position]))
    return value


@kernel
def get_uvarint(data: U8, at: int, stop: int) -> tuple[int, np.uint64]:
    """The place after a varint and its value; the place is -1 when it does not end before ``stop`` or is too long."""
    value = np.uint64(0)
    for position in range(_LONGEST_VARINT):
        if at >= stop:
            return -1, value
        byte = data[at]
        at += 1
        if position == _LONGEST_VARINT - 1 and byte > 1:
            return -1, value
        value |= np.uint64(byte & 0x7F) << np.uint64(7 * position)
        if byte < 0x80:
            return at, value
    return -1, value


@kernel
def count_simple8b(data: U8, at: int, stop: int) -> int:
    """How many numbers the words from ``at`` to ``stop`` hold; -1 when these are no whole words."""
    if (stop - at) % 8 != 0:
        return -1
    total = 0
    while at < stop:
        total += _COUNTS[data[at] >> 4]
        at += 8
    return total


@kernel
def get_simple8b(data: U8, at: int, stop: int, out: U64, first: int, limit: int) -> int:
    """Writes the numbers of whole words to ``out[first:limit]``; the place after the last, -1 when they do not fit."""
    if (stop - at) % 8 != 0:
        return -1
    while at < stop:
        word = get_u64(data, at)
        at += 8
        selector = int(np.int64(word >> np.uint64(60)))
        count, width = _COUNTS[selector], _WIDTHS[selector]
        if first + count > limit:
            return -1
        if width == 0:
            for _ in range(count):
                out[first] = _ONE
                first += 1
        else:
            mask = (_ONE << np.uint64(width)) - _ONE
            for position in range(count):
                out[first] = (word >> np.uint64(position * width)) & mask
                first += 1
    return first
