"""Loops over deleted ranges: from the entries of a tombstone to keys of its file, and from there to points."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influxdb_backup.influx.tsm.decode_words import get_u32, get_u64
from influxdb_backup.influx.tsm.format import MAX_KEY_BYTES
from influxdb_backup.jit import kernel

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

_EARLIEST, _LATEST = -(2**63), 2**63 - 1
_NEWLINE, _RETURN = 0x0A, 0x0D


@kernel
def _compared(data: U8, at: int, size: int, other: U8, other_at: int, other_size: int) -> int:
    """Below 0, 0 or above 0, as the first bytes sort before, equal or after the others."""
    for position in range(min(size, other_size)):
        difference = int(np.int64(data[at + position])) - int(np.int64(other[other_at + position]))
        if difference != 0:
            return difference
    return size - other_size


@kernel
def _find_key(file: U8, key_at: I64, key_size: I64, data: U8, at: int, size: int, guess: int) -> int:
    """The number of a key among the file's ascending ones, -1 for none; ``guess`` is tried first."""
    if guess < len(key_at) and _compared(file, key_at[guess], key_size[guess], data, at, size) == 0:
        return guess
    low, high = 0, len(key_at)
    while low < high:
        middle = (low + high) >> 1
        difference = _compared(file, key_at[middle], key_size[middle], data, at, size)
        if difference == 0:
            return middle
        if difference < 0:
            low = middle + 1
        else:
            high = middle
    return -1


@kernel
def walk_entries(
    data: U8, file: U8, key_at: I64, key_size: I64, guess: int, keys: I64, low: I64, high: I64
) -> tuple[int, int, int]:
    """
    The entries (length of the key, key, first and last instant) whose key the file has.

    Returns the place after the last whole entry, how many were found, and the likely number of the next key. Stops
    before a key that is longer than keys can be.
    """
    at, count = 0, 0
    while at + 4 <= len(data):
        size = get_u32(data, at)
        end = at + 4 + size + 16
        if size > MAX_KEY_BYTES or end > len(data):
            break
        key = _find_key(file, key_at, key_size, data, at + 4, size, guess)
        if key >= 0:
            keys[count] = key
            low[count] = np.int64(get_u64(data, end - 16))
            high[count] = np.int64(get_u64(data, end - 8))
            count += 1
            guess = key + 1
        at = end
    return at, count, guess


@kernel
def _holds(data: U8, at: int, stop: int, mark: U8) -> bool:
    for place in range(at, stop - len(mark) + 1):
        found = True
        for step in range(len(mark)):
            if data[place + step] != mark[step]:
                found = False
                break
        if found:
            return True
    return False


@kernel
def walk_lines(
    data: U8, file: U8, key_at: I64, key_size: I64, mark: U8, guess: int, keys: I64, low: I64, high: I64
) -> tuple[int, int, int, bool]:
    """As ``walk_entries``, for lines that are a key each; and whether it stopped at a line that is none."""
    at, count = 0, 0
    while True:
        end = at
        while end < len(data) and data[end] != _NEWLINE:
            end += 1
        if end == len(data):
            return at, count, guess, False
        stop = end - 1 if end > at and data[end - 1] == _RETURN else end
        if stop > at:
            if stop - at > MAX_KEY_BYTES or not _holds(data, at, stop, mark):
                return at, count, guess, True
            key = _find_key(file, key_at, key_size, data, at, stop - at, guess)
            if key >= 0:
                keys[count], low[count], high[count] = key, _EARLIEST, _LATEST
                count += 1
                guess = key + 1
        at = end + 1


@kernel
def clip_ranges(keys: I64, low: I64, high: I64, lowest: I64, highest: I64) -> int:
    """Cuts ranges to the times that their keys have and leaves out those that hold none; returns how many remain."""
    count = 0
    for number in range(len(keys)):
        key = keys[number]
        first, last = max(low[number], lowest[key]), min(high[number], highest[key])
        if first <= last:
            keys[count], low[count], high[count] = key, first, last
            count += 1
    return count


@kernel
def join_ranges(keys: I64, low: I64, high: I64) -> int:
    """Joins ranges of the same key that overlap, given in the order of keys and first instants; how many remain."""
    count = 0
    for number in range(len(keys)):
        if count > 0 and keys[count - 1] == keys[number] and low[number] <= high[count - 1]:
            high[count - 1] = max(high[count - 1], high[number])
        else:
            keys[count], low[count], high[count] = keys[number], low[number], high[number]
            count += 1
    return count


@kernel
def keep_undeleted(
    times: I64, firsts: I64, counts: I64, keys: I64, range_first: I64, low: I64, high: I64, kept: U8
) -> None:
    """Marks with 0 the points of blocks, each of one of the ``keys``, that lie in a range of its key."""
    for block in range(len(firsts)):
        position, stop = firsts[block], firsts[block] + counts[block]
        here, end = range_first[keys[block]], range_first[keys[block] + 1]
        last = end
        while here < last:
            middle = (here + last) >> 1
            if high[middle] < times[position]:
                here = middle + 1
            else:
                last = middle
        while position < stop and here < end:
            if high[here] < times[position]:
                here += 1
                continue
            if low[here] <= times[position]:
                kept[position] = 0
            position += 1
