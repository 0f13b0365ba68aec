"""Compiled loops over the rows of a msgpack answer; ``influx/fast_rows.py`` calls them. Needs numba."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influxdb_backup.jit import kernel

Bytes = npt.NDArray[np.uint8]
Places = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]


@kernel
def big_endian(data: Bytes, place: int, width: int) -> np.uint64:
    """The unsigned number in ``width`` bytes at ``place``; the caller has bounded both."""
    value = np.uint64(0)
    for step in range(width):
        value = (value << np.uint64(8)) | np.uint64(data[place + step])
    return value


@kernel
def value_width(data: Bytes, place: int) -> int:
    """
    Bytes of the value whose marker is at ``place``, which the caller has bounded.

    0 when its head is cut off or it is no value that InfluxDB puts into a row (a map, an array, an extension).
    """
    marker = int(data[place])
    if marker <= 0x7F or marker >= 0xE0 or marker in (0xC0, 0xC2, 0xC3):
        return 1
    if 0xA0 <= marker <= 0xBF:
        return 1 + (marker & 31)
    if marker in (0xCB, 0xCF, 0xD3):
        return 9
    if marker in (0xCC, 0xD0):
        return 2
    if marker in (0xCD, 0xD1):
        return 3
    if marker in (0xCE, 0xD2):
        return 5
    head = 0
    if marker == 0xD9:
        head = 1
    elif marker == 0xDA:
        head = 2
    elif marker == 0xDB:
        head = 4
    if head == 0 or place + 1 + head > len(data):
        return 0
    return 1 + head + int(big_endian(data, place + 1, head))


@kernel
def find_rows(data: Bytes, starts: npt.NDArray[np.int64]) -> tuple[int, int]:
    """
    Whole rows at the start of ``data``; ``starts[column, row]`` becomes the place of each value's marker.

    As many as ``starts`` has room for. Returns how many there are and the place after the last one.
    """
    columns, limit = starts.shape
    size = len(data)
    head = 1 if columns < 16 else 3
    end = 0
    for row in range(limit):
        place = end
        if place + head >= size:
            return row, end
        if head == 1:
            if int(data[place]) != (0x90 | columns):
                return row, end
        elif data[place] != 0xDC or int(big_endian(data, place + 1, 2)) != columns:
            return row, end
        place += head
        for column in range(columns):
            if place >= size:
                return row, end
            starts[column, row] = place
            width = value_width(data, place)
            if width == 0 or width > size - place:
                return row, end
            place += width
        end = place
    return limit, end


@kernel
def floats(data: Bytes, starts: Places, bits: Words, nulls: Flags) -> tuple[int, int]:
    """The bits of the floats at ``starts``. Returns how many are nil, and the first that is neither (or -1)."""
    missing = 0
    for row in range(len(starts)):
        place = starts[row]
        marker = data[place]
        if marker == 0xCB:
            bits[row] = big_endian(data, place + 1, 8)
            nulls[row] = False
        elif marker == 0xC0:
            bits[row] = 0
            nulls[row] = True
            missing += 1
        else:
            return missing, row
    return missing, -1


@kernel
def booleans(data: Bytes, starts: Places, values: Flags, nulls: Flags) -> tuple[int, int]:
    """As ``floats``, for booleans."""
    missing = 0
    for row in range(len(starts)):
        marker = data[starts[row]]
        values[row] = marker == 0xC3
        nulls[row] = marker == 0xC0
        if marker == 0xC0:
            missing += 1
        elif marker not in (0xC2, 0xC3):
            return missing, row
    return missing, -1


@kernel
def integers(data: Bytes, starts: Places, bits: Words, nulls: Flags, signed: bool) -> tuple[int, int]:
    """As ``floats``, for integers in two's complement (``signed``) or unsigned; one out of range is not one of them."""
    missing = 0
    for row in range(len(starts)):
        place = starts[row]
        marker = int(data[place])
        nulls[row] = False
        if marker <= 0x7F:
            bits[row] = np.uint64(marker)
        elif 0xCC <= marker <= 0xCF:
            value = big_endian(data, place + 1, 1 << (marker - 0xCC))
            if signed and value >> np.uint64(63):
                return missing, row
            bits[row] = value
        elif 0xD0 <= marker <= 0xD3:
            width = 1 << (marker - 0xD0)
            value = big_endian(data, place + 1, width)
            negative = data[place + 1] >= 0x80
            if negative and not signed:
                return missing, row
            if negative and width < 8:
                value |= ~np.uint64(0) << np.uint64(8 * width)
            bits[row] = value
        elif marker >= 0xE0 and signed:
            bits[row] = np.uint64(marker) | ~np.uint64(0xFF)
        elif marker == 0xC0:
            bits[row] = 0
            nulls[row] = True
            missing += 1
        else:
            return missing, row
    return missing, -1


@kernel
def text_bounds(data: Bytes, starts: Places, bounds: npt.NDArray[np.int32], nulls: Flags) -> tuple[int, int]:
    """First and last-but-one place of each text in ``bounds[2 * row]`` and the element after it; else as ``floats``."""
    missing = 0
    for row in range(len(starts)):
        place = starts[row]
        marker = int(data[place])
        nulls[row] = False
        if 0xA0 <= marker <= 0xBF:
            first, length = place + 1, marker & 31
        elif 0xD9 <= marker <= 0xDB:
            head = 1 << (marker - 0xD9)
            first, length = place + 1 + head, int(big_endian(data, place + 1, head))
        elif marker == 0xC0:
            first, length = place, 0
            nulls[row] = True
            missing += 1
        else:
            return missing, row
        bounds[2 * row] = first
        bounds[2 * row + 1] = first + length
    return missing, -1
