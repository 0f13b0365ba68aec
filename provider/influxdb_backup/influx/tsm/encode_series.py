"""From columns of cells in series order to the blocks and the index of a TSM file, key after key."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from influxdb_backup.influx.tsm.checksum import crc32
from influxdb_backup.influx.tsm.encode_numbers import put_booleans, put_floats, put_integers, put_times
from influxdb_backup.influx.tsm.encode_snappy import put_snappy, snappy_bound
from influxdb_backup.influx.tsm.encode_words import put_u64, put_uvarint
from influxdb_backup.jit import kernel, making_arrays

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

SERIES, FIELD, ROW, OUT, INDEX, BASE, COUNT_AT, BLOCKS, VALUES, KEYS = range(10)
"""
Places in ``state``: the next series and field, the next row (-1: the key has not begun), bytes in ``out`` and in
``index``, the place in the file of ``out[0]``, where the open key's number of blocks stands in ``index`` and what it
is, and the values and keys written so far.
"""
STATE_SIZE = 10
DONE, OUT_FULL, INDEX_FULL, TOO_MANY_BLOCKS = range(4)

KEY_INDEX_BYTES = 2 + 65_535 + 3 + 65_535 * 28
"""the most that the index says of one key"""
CACHED_BLOCKS = 64
"""blocks of a series whose time section is remembered for its next field"""
_POINTS = 1000
_TIME_BYTES = 1 + 8 * _POINTS
_VALUE_BYTES = 16 + 10 * _POINTS


@kernel
def room_for_block(longest_text: int, text_bytes: int) -> int:
    """Bytes that one block takes at most, where a string has at most ``longest_text`` bytes with its length."""
    values = _VALUE_BYTES
    if longest_text > 0:
        values = max(values, 1 + snappy_bound(text_bytes + 2 * longest_text))
    return 4 + 1 + 10 + _TIME_BYTES + values


@kernel
def _text_end(pool: U8, at: int) -> int:
    """Where the string ends whose length stands at ``at``, as encode_pool wrote it."""
    length, shift = 0, 0
    while pool[at] > 0x7F:
        length |= int(np.int64(pool[at] & 0x7F)) << shift
        shift += 7
        at += 1
    return at + 1 + (length | (int(np.int64(pool[at])) << shift))


@kernel
def _put_key(index: U8, at: int, series: U8, first: int, last: int, field: U8, start: int, stop: int, kind: int) -> int:
    length = last - first + stop - start
    index[at] = np.uint8(length >> 8)
    index[at + 1] = np.uint8(length & 0xFF)
    at += 2
    for position in range(first, last):
        index[at] = series[position]
        at += 1
    for position in range(start, stop):
        index[at] = field[position]
        at += 1
    index[at] = np.uint8(kind)
    return at + 3


@kernel
def _put_u32(out: U8, at: int, value: int) -> int:
    for position in range(4):
        out[at + position] = np.uint8((value >> (24 - 8 * position)) & 0xFF)
    return at + 4


@kernel
def _ascends(times: I64, first: int, until: int) -> bool:
    """Whether each of these times is later than the one before."""
    for row in range(first + 1, until):  # noqa: SIM110 - numba has no generators
        if times[row] <= times[row - 1]:
            return False
    return True


@making_arrays
def encode_series(
    state: I64,
    until: int,
    starts: I64,
    order: I64,
    times: I64,
    cells: U64,
    cell_of: I64,
    mask_of: I64,
    masks: U8,
    kinds: I64,
    pool: U8,
    longest_text: int,
    text_bytes: int,
    series_bytes: U8,
    series_offsets: I64,
    field_bytes: U8,
    field_offsets: I64,
    out: U8,
    index: U8,
) -> int:
    """
    Writes blocks to ``out`` and their keys to ``index`` until all series before ``until`` are done or one is full.

    Series ``s`` has the rows ``starts[s]`` to ``starts[s + 1]`` of ``order`` (empty: as they stand), times ascending;
    of points with equal time the last one that has the field counts. ``cells[cell_of[f], row]`` holds bits of a number,
    or the place in ``pool`` of a string with its length; ``masks[mask_of[f], row]`` is 0 for null (``mask_of`` -1: no
    null). ``cells`` may have room for more. A series' bytes end with the separator. ``out`` must have room_for_block,
    ``index`` KEY_INDEX_BYTES.
    """
    fields = len(kinds)
    room = room_for_block(longest_text, text_bytes)
    block_times = np.empty(_POINTS, np.int64)
    block_values = np.empty(_POINTS, np.uint64)
    deltas = np.empty(_POINTS, np.uint64)
    texts = np.empty(text_bytes + 2 * longest_text if longest_text > 0 else 0, np.uint8)
    table = np.empty(1 << 14 if longest_text > 0 else 0, np.uint16)
    cached_times = np.empty((CACHED_BLOCKS, _POINTS), np.int64)
    cached_bytes = np.empty((CACHED_BLOCKS, _TIME_BYTES), np.uint8)
    cached_counts = np.zeros(CACHED_BLOCKS, np.int64)
    cached_sizes = np.zeros(CACHED_BLOCKS, np.int64)
    cached_rows = np.full(CACHED_BLOCKS, -1, np.int64)
    permuted = len(order) > 0
    series, field, row = state[SERIES], state[FIELD], state[ROW]
    at, index_at = state[OUT], state[INDEX]
    blocks, values = state[BLOCKS], state[VALUES]
    status = DONE
    while series < until:
        end = starts[series + 1]
        in_place = not permuted and _ascends(times, starts[series], end)
        while field < fields:
            if row < 0:
                if index_at + KEY_INDEX_BYTES > len(index):
                    status = INDEX_FULL
                    break
                row, blocks = starts[series], 0
            mask, line = mask_of[field], cell_of[field]
            kind = kinds[field]
            while row < end:
                if at + room > len(out):
                    status = OUT_FULL
                    break
                count, size = 0, 0
                begun, in_block = row, in_place and mask < 0 and kind != 3
                if in_block:
                    count = min(_POINTS, end - row)
                    row += count
                while not in_block and row < end:
                    place = order[row] if permuted else row
                    if mask >= 0 and masks[mask, place] == 0:
                        row += 1
                        continue
                    moment = times[place]
                    cell = cells[line, place]
                    again = count > 0 and block_times[count - 1] == moment
                    if kind == 3:
                        length = _text_end(pool, int(np.int64(cell))) - int(np.int64(cell))
                        if again:
                            before = int(np.int64(block_values[count - 1]))
                            size -= _text_end(pool, before) - before
                        elif count > 0 and size + length > text_bytes:
                            break
                        if again or count < _POINTS:
                            size += length
                    if again:
                        block_values[count - 1] = cell
                        row += 1
                        continue
                    if count == _POINTS:
                        break
                    block_times[count] = moment
                    block_values[count] = cell
                    count += 1
                    row += 1
                if count == 0:
                    break
                if blocks == 0:
                    index_at = _put_key(
                        index,
                        index_at,
                        series_bytes,
                        series_offsets[series],
                        series_offsets[series + 1],
                        field_bytes,
                        field_offsets[field],
                        field_offsets[field + 1],
                        kind,
                    )
                    state[COUNT_AT] = index_at - 2
                    state[KEYS] += 1
                elif blocks == 65_535:
                    return TOO_MANY_BLOCKS
                begin = at
                at += 4
                out[at] = np.uint8(kind)
                at += 1
                slot = blocks if blocks < CACHED_BLOCKS else CACHED_BLOCKS - 1
                own_times = times[begun : begun + count] if in_block else block_times
                own_values = cells[line, begun : begun + count] if in_block else block_values
                same = cached_counts[slot] == count
                if same and not (in_block and cached_rows[slot] == begun):
                    for position in range(count):
                        if cached_times[slot, position] != own_times[position]:
                            same = False
                            break
                if not same:
                    cached_times[slot, :count] = own_times[:count]
                    cached_counts[slot] = count
                    cached_sizes[slot] = put_times(cached_bytes[slot], 0, own_times, count, deltas)
                cached_rows[slot] = begun if in_block else -1
                length = cached_sizes[slot]
                at = put_uvarint(out, at, np.uint64(length))
                for position in range(length):
                    out[at + position] = cached_bytes[slot, position]
                at += length
                if kind == 0:
                    at = put_floats(out, at, own_values, count)
                elif kind == 2:
                    at = put_booleans(out, at, own_values, count)
                elif kind == 3:
                    size = 0
                    for position in range(count):
                        first = int(np.int64(block_values[position]))
                        for source in range(first, _text_end(pool, first)):
                            texts[size] = pool[source]
                            size += 1
                    out[at] = 0x10
                    at = put_snappy(out, at + 1, texts, size, table)
                else:
                    at = put_integers(out, at, own_values, count, deltas)
                _put_u32(out, begin, crc32(out, begin + 4, at))
                blocks += 1
                values += count
                index_at = put_u64(index, index_at, np.uint64(own_times[0]))
                index_at = put_u64(index, index_at, np.uint64(own_times[count - 1]))
                index_at = put_u64(index, index_at, np.uint64(state[BASE] + begin))
                index_at = _put_u32(index, index_at, at - begin)
            if status != DONE:
                break
            if blocks > 0:
                index[state[COUNT_AT]] = np.uint8(blocks >> 8)
                index[state[COUNT_AT] + 1] = np.uint8(blocks & 0xFF)
            row = -1
            field += 1
        if status != DONE:
            break
        field = 0
        series += 1
    state[SERIES], state[FIELD], state[ROW] = series, field, row
    state[OUT], state[INDEX] = at, index_at
    state[BLOCKS], state[VALUES] = blocks, values
    return status


@kernel
def put_pool(pool: U8, at: int, data: U8, offsets: I64, valid: U8, cells: U64) -> int:
    """Copies strings with their lengths to ``pool``; each one's place goes to ``cells``. Returns where they end."""
    for row in range(len(cells)):
        if len(valid) > 0 and valid[row] == 0:
            continue
        cells[row] = np.uint64(at)
        at = put_uvarint(pool, at, np.uint64(offsets[row + 1] - offsets[row]))
        for position in range(offsets[row], offsets[row + 1]):
            pool[at] = data[position]
            at += 1
    return at


@making_arrays
def series_order(ids: I64, times: I64, starts: I64) -> I64:
    """
    The order of rows by series and time, equal ones as they stand; empty when they stand so already.

    ``starts`` (one more than there are series) is filled with where each series begins.
    """
    rows, count = len(ids), len(starts) - 1
    ordered = True
    for row in range(1, rows):
        if ids[row] < ids[row - 1] or (ids[row] == ids[row - 1] and times[row] < times[row - 1]):
            ordered = False
            break
    starts[:] = 0
    for row in range(rows):
        starts[ids[row] + 1] += 1
    for series in range(count):
        starts[series + 1] += starts[series]
    if ordered:
        return np.empty(0, np.int64)
    order = np.empty(rows, np.int64)
    following = starts[:count].copy()
    for row in range(rows):
        order[following[ids[row]]] = row
        following[ids[row]] += 1
    for series in range(count):
        first, stop = starts[series], starts[series + 1]
        for place in range(first + 1, stop):
            if times[order[place]] < times[order[place - 1]]:
                inner = np.argsort(times[order[first:stop]], kind="mergesort")
                order[first:stop] = order[first:stop][inner]
                break
    return order
