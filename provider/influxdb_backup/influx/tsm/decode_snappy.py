"""Snappy's block format (github.com/google/snappy, format_description.txt), read with every place bounded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influxdb_backup.influx.tsm.decode_words import get_uvarint
from influxdb_backup.jit import kernel

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

_LARGEST = 1 << 31
"""no block of strings is larger; what says it is, is no block"""
_SHORTEST_COPY, _LONGEST_COPY = 3, 64
"""bytes that a copy takes at least to give that many plain ones, which is the most that any stretch can grow"""


@kernel
def plain_size(data: U8, at: int, stop: int) -> int:
    """How many bytes a compressed stretch says it holds; -1 when it cannot hold that many."""
    place, size = get_uvarint(data, at, stop)
    if place < 0 or size > np.uint64(_LARGEST):
        return -1
    if size * np.uint64(_SHORTEST_COPY) > np.uint64(stop - place) * np.uint64(_LONGEST_COPY):
        return -1
    return int(np.int64(size))


@kernel
def decompress(data: U8, at: int, stop: int, out: U8, first: int, limit: int) -> int:
    """Writes the plain bytes to ``out[first:limit]``; the place after the last, -1 for bytes that are not snappy's."""
    size = plain_size(data, at, stop)
    at, _ = get_uvarint(data, at, stop)
    if size < 0 or size > limit - first:
        return -1
    end = first + size
    place = first
    while at < stop:
        tag = int(np.int64(data[at]))
        at += 1
        kind = tag & 3
        if kind == 0:
            length = tag >> 2
            if length >= 60:
                more = length - 59
                if at + more > stop:
                    return -1
                length = 0
                for position in range(more):
                    length |= int(np.int64(data[at + position])) << (8 * position)
                at += more
            length += 1
            if length > stop - at or length > end - place:
                return -1
            for position in range(length):
                out[place + position] = data[at + position]
            at += length
            place += length
            continue
        more = 1 if kind == 1 else (2 if kind == 2 else 4)
        if at + more > stop:
            return -1
        offset = 0
        for position in range(more):
            offset |= int(np.int64(data[at + position])) << (8 * position)
        at += more
        length = 1 + (tag >> 2)
        if kind == 1:
            length = 4 + ((tag >> 2) & 7)
            offset |= (tag >> 5) << 8
        if offset == 0 or offset > place - first or length > end - place:
            return -1
        for position in range(length):
            out[place + position] = out[place - offset + position]
        place += length
    return place if place == end else -1


@kernel
def split_texts(data: U8, at: int, stop: int, starts: I64, first: int, limit: int) -> int:
    """
    Places of the strings in plain bytes, each after its length: ``starts[i]`` is where the length of string i stands.

    Returns how many there are, which must fill the stretch exactly; -1 otherwise.
    """
    count = 0
    while at < stop:
        if first + count >= limit:
            return -1
        starts[first + count] = at
        at, length = get_uvarint(data, at, stop)
        if at < 0 or length > np.uint64(stop - at):
            return -1
        at += int(np.int64(length))
        count += 1
    return count
