"""
The parts of series keys: where the measurement ends and each tag stands.

A key is ``measurement,tag=value,...`` with escaped names, sorted by tag. A delimiter counts unless the byte before it
is a backslash, which is how the servers read their own keys.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influxdb_backup.influx.tsm.format import ENTRY_BYTES, FOOTER_BYTES, SEPARATOR
from influxdb_backup.jit import kernel

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

_COMMA, _EQUALS, _BACKSLASH = 0x2C, 0x3D, 0x5C


@kernel
def _until(data: U8, at: int, stop: int, delimiter: int) -> int:
    """The first place from ``at`` on where the delimiter stands without a backslash before it, else ``stop``."""
    before = 0
    while at < stop:
        if data[at] == delimiter and before != _BACKSLASH:
            return at
        before = int(np.int64(data[at]))
        at += 1
    return stop


@kernel
def series_begin(data: U8, key_at: I64, separators: I64, begins: npt.NDArray[np.bool_]) -> None:
    """Marks each key whose series is another than that of the key before: keys of one series follow each other."""
    for key in range(len(key_at)):
        at, size = key_at[key], separators[key]
        begins[key] = key == 0 or separators[key - 1] != size
        position = 0
        while not begins[key] and position < size:
            begins[key] = data[at + position] != data[key_at[key - 1] + position]
            position += 1


@kernel
def measurement_ends(data: U8, offsets: I64, ends: I64, tags: I64) -> None:
    """For each key ``offsets[k]`` to ``offsets[k + 1]`` the end of its measurement and the number of its tags."""
    for key in range(len(ends)):
        stop = offsets[key + 1]
        place = _until(data, offsets[key], stop, _COMMA)
        ends[key] = place
        count = 0
        while place < stop:
            count += 1
            place = _until(data, place + 1, stop, _COMMA)
        tags[key] = count


@kernel
def tag_places(
    data: U8,
    offsets: I64,
    ends: I64,
    keys: I64,
    owner: I64,
    names: I64,
    values: I64,
) -> int:
    """
    The tags of the chosen ``keys``: ``owner`` is the position of each tag's key in ``keys``, ``names`` and ``values``
    hold where the tag's name and value begin and end. The first key that has no such form, or -1.
    """
    number = 0
    for position in range(len(keys)):
        stop = offsets[keys[position] + 1]
        place = ends[keys[position]]
        while place < stop:
            end = _until(data, place + 1, stop, _COMMA)
            middle = _until(data, place + 1, end, _EQUALS)
            if middle == end:
                return position
            owner[number] = position
            names[0, number], names[1, number] = place + 1, middle
            values[0, number], values[1, number] = middle + 1, end
            number += 1
            place = end
    return -1


def spelled_series(data: U8) -> bytes | None:
    """The first series of a file's index that line protocol can spell: it has no line of several, and no comment."""
    stop = len(data) - FOOTER_BYTES
    at = int.from_bytes(data[stop:].tobytes(), "big")
    while at < stop:
        head = at + 2 + int.from_bytes(data[at : at + 2].tobytes(), "big")
        series = data[at + 2 : head].tobytes().partition(SEPARATOR)[0]
        if b"\n" not in series and not series.startswith(b"#"):
            return series
        at = head + 3 + int.from_bytes(data[head + 1 : head + 3].tobytes(), "big") * ENTRY_BYTES
    return None
