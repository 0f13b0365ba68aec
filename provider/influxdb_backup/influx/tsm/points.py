"""From blocks to rows: counts, points in order, later files win, deleted ranges gone, fields side by side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influxdb_backup.influx.tsm.decode_numbers import count_times, get_booleans, get_floats, get_integers, get_times
from influxdb_backup.influx.tsm.decode_snappy import decompress, plain_size, split_texts
from influxdb_backup.influx.tsm.decode_words import get_uvarint
from influxdb_backup.jit import kernel, making_arrays

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

_HEAD = 4
"""bytes of the checksum before a block's type"""
_FLOAT, _BOOLEAN, _STRING = 0, 2, 3
OTHER_TIMES = -2
"""what decode_aligned says of a block that has other times than its lead"""


@kernel
def _sections(data: U8, at: int, size: int, kind: int) -> tuple[int, int]:
    """Where the times of a block begin and end; -1 when this is no block of its kind."""
    stop = at + size
    if data[at + _HEAD] != kind:
        return -1, -1
    place, length = get_uvarint(data, at + _HEAD + 1, stop)
    if place < 0 or length > np.uint64(stop - place):
        return -1, -1
    return place, place + int(np.int64(length))


@kernel
def measure_blocks(data: U8, places: I64, sizes: I64, kinds: I64, counts: I64, rooms: I64) -> int:
    """How many points each block holds and how many plain bytes its strings have; the first bad block, or -1."""
    for number in range(len(places)):
        first, stop = _sections(data, places[number], sizes[number], kinds[number])
        count = count_times(data, first, stop) if first >= 0 else -1
        if count < 0:
            return number
        room = 0
        if kinds[number] == _STRING:
            end = places[number] + sizes[number]
            room = plain_size(data, stop + 1, end) if stop < end else -1
            if room < count:
                return number
        counts[number], rooms[number] = count, room
    return -1


@kernel
def _same_times_section(
    data: U8, places: I64, sizes: I64, kinds: I64, number: int, other: int, begin: int, stop: int
) -> bool:
    """Whether block ``other`` comes before and has byte for byte the times that stand from ``begin`` to ``stop``."""
    if other < 0 or other >= number:
        return False
    first, last = _sections(data, places[other], sizes[other], kinds[other])
    if last - first != stop - begin:
        return False
    position = 0
    while position < stop - begin and data[first + position] == data[begin + position]:
        position += 1
    return position == stop - begin


@kernel
def _get_ascending(data: U8, begin: int, stop: int, times: I64, first: int, limit: int) -> bool:
    """Whether the times of a section are just those from ``first`` to ``limit``, each after the one before it."""
    if get_times(data, begin, stop, times.view(np.uint64), first, limit) != limit - first:
        return False
    position = first + 1
    while position < limit and times[position] > times[position - 1]:
        position += 1
    return position >= limit


@kernel
def _get_values(
    data: U8, at: int, end: int, kind: int, bits: U64, first: int, limit: int, texts: U8, text_first: int
) -> bool:
    """Whether the values of a block, from ``at`` to ``end``, are just those from ``first`` to ``limit`` of ``bits``."""
    found = -1
    if kind == _FLOAT:
        found = get_floats(data, at, end, bits, first, limit)
    elif kind == _BOOLEAN:
        found = get_booleans(data, at, end, bits, first, limit)
    elif kind == _STRING:
        if at < end and data[at] >> 4 == 1:
            last = decompress(data, at + 1, end, texts, text_first, len(texts))
            if last >= 0:
                found = split_texts(texts, text_first, last, bits.view(np.int64), first, limit)
    else:
        found = get_integers(data, at, end, bits, first, limit)
    return bool(found == limit - first)


@kernel
def decode_blocks(
    data: U8,
    places: I64,
    sizes: I64,
    kinds: I64,
    lowest: I64,
    highest: I64,
    alike: I64,
    counts: I64,
    firsts: I64,
    text_firsts: I64,
    times: I64,
    bits: U64,
    texts: U8,
) -> int:
    """
    Decodes block ``i`` to ``times`` and ``bits`` from ``firsts[i]`` on; the first bad block, or -1.

    ``bits`` are those of a number, or the place in ``texts`` where a string's length stands. ``lowest`` and ``highest``
    are the block's bounds by the index, ``counts`` and the room for texts from ``text_firsts`` on by measure_blocks.
    ``alike`` names an earlier block that may have the same times, as the fields of one series mostly do, or is -1.
    """
    for number in range(len(places)):
        at, count, first = places[number], counts[number], firsts[number]
        limit = first + count
        begin, stop = _sections(data, at, sizes[number], kinds[number])
        end = at + sizes[number]
        if begin < 0:
            return number
        if _same_times_section(data, places, sizes, kinds, number, alike[number], begin, stop):
            other = firsts[alike[number]]
            for position in range(count):
                times[first + position] = times[other + position]
        elif not _get_ascending(data, begin, stop, times, first, limit):
            return number
        if times[first] != lowest[number] or times[limit - 1] != highest[number]:
            return number
        if not _get_values(data, stop, end, kinds[number], bits, first, limit, texts, text_firsts[number]):
            return number
    return -1


@kernel
def decode_aligned(
    data: U8,
    places: I64,
    sizes: I64,
    kinds: I64,
    lowest: I64,
    highest: I64,
    leads: I64,
    counts: I64,
    row_firsts: I64,
    firsts: I64,
    text_firsts: I64,
    moments: I64,
    bits: U64,
    texts: U8,
) -> int:
    """
    Decodes block ``i`` to ``bits`` from ``firsts[i]`` on; the first bad block, -1, or OTHER_TIMES.

    Blocks that are their own lead give ``moments`` from ``row_firsts[i]`` on, all others must have the times of theirs.
    The rest is as in decode_blocks.
    """
    for number in range(len(places)):
        at, count, row = places[number], counts[number], row_firsts[number]
        begin, stop = _sections(data, at, sizes[number], kinds[number])
        if begin < 0:
            return number
        if leads[number] == number:
            if not _get_ascending(data, begin, stop, moments, row, row + count):
                return number
            if moments[row] != lowest[number] or moments[row + count - 1] != highest[number]:
                return number
        elif not _same_times_section(data, places, sizes, kinds, number, leads[number], begin, stop):
            return OTHER_TIMES
        first, end = firsts[number], at + sizes[number]
        if not _get_values(data, stop, end, kinds[number], bits, first, first + count, texts, text_firsts[number]):
            return number
    return -1


@making_arrays
def settle(times: I64, bits: U64, kept: U8, starts: I64, stops: I64, begin: int, end: int) -> None:
    """
    Makes each stretch ``starts[k]`` to ``stops[k]`` the ascending points of one key in ``begin`` to ``end`` (excluded).

    Of points with equal times the last one counts; ``stops`` becomes the end of what remains.
    """
    for key in range(len(starts)):
        settled = True
        for position in range(starts[key], stops[key]):
            inside = begin <= times[position] < end and kept[position] == 1
            if not inside or (position > starts[key] and times[position] <= times[position - 1]):
                settled = False
                break
        if settled:
            continue
        last = starts[key]
        ordered = True
        for position in range(starts[key], stops[key]):
            moment = times[position]
            if moment < begin or moment >= end or kept[position] == 0:
                continue
            if last > starts[key] and moment <= times[last - 1]:
                ordered = False
            times[last] = moment
            bits[last] = bits[position]
            last += 1
        if not ordered:
            order = np.argsort(times[starts[key] : last], kind="mergesort")
            moments = times[starts[key] : last][order]
            words = bits[starts[key] : last][order]
            last = starts[key]
            for position in range(len(order)):
                if last > starts[key] and times[last - 1] == moments[position]:
                    last -= 1
                times[last] = moments[position]
                bits[last] = words[position]
                last += 1
        stops[key] = last


@kernel
def _next_row(times: I64, starts: I64, stops: I64, first: int, fields: int, at: I64) -> tuple[bool, int]:
    """Whether any field has a point left, and the earliest time of these points."""
    found = False
    earliest = 0
    for field in range(fields):
        key = first + field
        if starts[key] + at[field] < stops[key]:
            moment = times[starts[key] + at[field]]
            if not found or moment < earliest:
                found, earliest = True, moment
    return found, earliest


@kernel
def _same_times(times: I64, starts: I64, stops: I64, first: int, fields: int) -> int:
    """The number of points of each field when all have the same times, else -1."""
    count = int(stops[first] - starts[first])
    for field in range(1, fields):
        key = first + field
        if stops[key] - starts[key] != count:
            return -1
        for position in range(count):
            if times[starts[key] + position] != times[starts[first] + position]:
                return -1
    return count


@making_arrays
def count_rows(times: I64, starts: I64, stops: I64, fields: int, rows: I64) -> None:
    """The rows of each series, whose keys are ``fields`` stretches in a row: one for each time of any field."""
    at = np.zeros(fields, np.int64)
    for series in range(len(rows)):
        first = series * fields
        rows[series] = _same_times(times, starts, stops, first, fields)
        if rows[series] >= 0:
            continue
        at[:] = 0
        rows[series] = 0
        while True:
            found, moment = _next_row(times, starts, stops, first, fields, at)
            if not found:
                break
            for field in range(fields):
                key = first + field
                if starts[key] + at[field] < stops[key] and times[starts[key] + at[field]] == moment:
                    at[field] += 1
            rows[series] += 1


@making_arrays
def fill_rows(
    times: I64, bits: U64, starts: I64, stops: I64, fields: int, rows: I64, moments: I64, cells: U64, nulls: U8
) -> None:
    """
    Writes each row's time to ``moments`` and each field's bits to ``cells[field]``, 1 to ``nulls`` where none.

    Moves ``starts`` on behind the ``rows`` that are written of each series, so that it can be called for the next ones.
    """
    at = np.zeros(fields, np.int64)
    row = 0
    for series in range(len(rows)):
        first = series * fields
        if _same_times(times, starts, stops, first, fields) >= 0:
            for position in range(rows[series]):
                moments[row + position] = times[starts[first] + position]
            for field in range(fields):
                place = starts[first + field]
                for position in range(rows[series]):
                    cells[field, row + position] = bits[place + position]
                    nulls[field, row + position] = 0
                starts[first + field] += rows[series]
            row += rows[series]
            continue
        for _ in range(rows[series]):
            _, moment = _next_row(times, starts, stops, first, fields, at)
            moments[row] = moment
            for field in range(fields):
                place = starts[first + field]
                has = place < stops[first + field] and times[place] == moment
                nulls[field, row] = 0 if has else 1
                cells[field, row] = bits[place] if has else np.uint64(0)
                if has:
                    starts[first + field] += 1
            row += 1


@kernel
def text_sizes(texts: U8, cells: U64, nulls: U8, offsets: I64) -> None:
    """Where each string of a column begins among the others: ``len(cells) + 1`` offsets from 0 on."""
    at = 0
    for row in range(len(cells)):
        offsets[row] = at
        if nulls[row] == 0:
            _, size = get_uvarint(texts, int(np.int64(cells[row])), len(texts))
            at += int(np.int64(size))
    offsets[len(cells)] = at


@kernel
def gather_texts(texts: U8, cells: U64, nulls: U8, offsets: I64, out: U8) -> None:
    """Copies each string of a column to its offset."""
    for row in range(len(cells)):
        if nulls[row] == 0:
            place, _ = get_uvarint(texts, int(np.int64(cells[row])), len(texts))
            for at in range(offsets[row], offsets[row + 1]):
                out[at] = texts[place]
                place += 1
