"""From the blocks of one measurement to record batches: decoded, without deleted points, fields side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from influxdb_backup.columns import TIME_TYPE, arrow_schema, null_column
from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.pooled import pooled_words
from influxdb_backup.influx.shard_aligned import aligned
from influxdb_backup.influx.shard_plan import TablePlan, is_utf8
from influxdb_backup.influx.tsm import points
from influxdb_backup.influx.tsm.deleted import keep_undeleted
from influxdb_backup.influx.tsm.format import BlockType
from influxdb_backup.influx.tsm.index import CorruptShardError, TsmIndex
from influxdb_backup.influx.tsm.tombstones import DeletedRanges
from influxdb_backup.model import Window
from influxdb_backup.resident import let_go_of_file

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

MOST_VALUES = 1 << 23
"""values that are decoded at once when blocks overlap: the largest blocks of hundreds of files at one time"""
MOST_TEXT = 2**31 - 1
"""and plain bytes of their strings, which is also what one Arrow array can hold"""
_ARROW_TYPES = {
    BlockType.FLOAT: pa.float64(),
    BlockType.INTEGER: pa.int64(),
    BlockType.BOOLEAN: pa.bool_(),
    BlockType.STRING: pa.binary(),
    BlockType.UNSIGNED: pa.uint64(),
}
BATCH_CELLS = 1 << 21
"""rows times columns of a batch"""


class TableReader:
    """Decodes groups of blocks of one measurement."""

    def __init__(
        self,
        indexes: Sequence[TsmIndex],
        deleted: Sequence[DeletedRanges | None],
        plan: TablePlan,
        lowest: I64,
        highest: I64,
        scratch: dict[str, U8],
    ) -> None:
        """``scratch`` is memory that is used again: one for all readers of one thread."""
        self._indexes = indexes
        self._deleted = deleted
        self._plan = plan
        self._lowest = lowest
        self._highest = highest
        self._scratch = scratch

    def read(self, part: I64, counts: I64, rooms: I64, stretch: Window) -> Iterator[pa.RecordBatch]:
        """
        The rows of these blocks (positions in the plan) within the stretch.

        Raises CorruptShardError for a block that cannot be decoded, and when more blocks overlap than servers write.
        """
        inside = (self._lowest[part] < stretch.end) & (self._highest[part] >= stretch.start)
        part, counts, rooms = part[inside], counts[inside], rooms[inside]
        if not len(part):
            return
        firsts, text_firsts = np.cumsum(counts) - counts, np.cumsum(rooms) - rooms
        total = int(counts.sum())
        if total > MOST_VALUES or rooms.sum() > MOST_TEXT:
            raise self._too_many(part, total)
        batch = self._aligned(part, counts, rooms, text_firsts, stretch)
        if batch is not None:
            yield batch
            return
        times, bits = self._room("times", 8 * total).view(np.int64), self._room("bits", 8 * total).view(np.uint64)
        kept, texts = self._room("kept", total), self._room("texts", int(rooms.sum()))
        kept[:] = 1
        for file, index in enumerate(self._indexes):
            own = np.flatnonzero(self._plan.block_file[part] == file)
            if not len(own):
                continue
            self._decode(file, index, part[own], counts[own], firsts[own], text_firsts[own], times, bits, kept, texts)
            let_go_of_file(index.data)
        yield from self._rows(part, counts, firsts, times, bits, kept, texts, stretch)

    def _aligned(self, part: I64, counts: I64, rooms: I64, text_firsts: I64, stretch: Window) -> pa.RecordBatch | None:
        """The rows where all fields have the same times, decoded to where they stay; None where they have not."""
        plan, fields = self._plan, len(self._plan.fields)
        if any(found is not None for found in self._deleted):
            return None
        places = aligned(plan, part, counts, self._lowest[part], self._highest[part], stretch)
        if places is None:
            return None
        total = int(places.rows.sum())
        if total > BATCH_CELLS // (1 + fields + len(plan.tags)):
            return None
        moments, cells = pooled_words(total).view(np.int64), pooled_words(fields * total)
        texts = self._room("texts", int(rooms.sum()))
        for file, index in enumerate(self._indexes):
            own = np.flatnonzero(plan.block_file[part] == file)
            numbers = plan.block_number[part[own]]
            kinds = plan.kinds_of(part[own])
            bad = points.decode_aligned(
                index.data, index.block_at[numbers], index.block_size[numbers], kinds, index.block_min[numbers],
                index.block_max[numbers], np.searchsorted(own, places.leads[own]), counts[own], places.row_firsts[own],
                places.firsts[own], text_firsts[own], moments, cells, texts,
            )  # fmt: skip
            if bad == points.OTHER_TIMES:
                return None
            refuse(index, numbers, bad)
            let_go_of_file(index.data)
        nulls = self._room("nulls", cells.size)
        nulls[:] = 0
        shape = fields, total
        return self._batch(places.series, places.rows, moments, cells.reshape(shape), nulls.reshape(shape), texts)

    def _too_many(self, part: I64, values: int) -> CorruptShardError:
        index = self._indexes[int(self._plan.block_file[part[0]])]
        return index.block_error(
            int(self._plan.block_number[part[0]]), f"and {len(part) - 1} more overlap with {values:,} values in all"
        )

    def _decode(
        self,
        file: int,
        index: TsmIndex,
        part: I64,
        counts: I64,
        firsts: I64,
        text_firsts: I64,
        times: I64,
        bits: U64,
        kept: U8,
        texts: U8,
    ) -> None:
        numbers = self._plan.block_number[part]
        kinds = self._plan.kinds_of(part)
        bad = points.decode_blocks(
            index.data, index.block_at[numbers], index.block_size[numbers], kinds, index.block_min[numbers],
            index.block_max[numbers], self._alike(part), counts, firsts, text_firsts, times, bits, texts,
        )  # fmt: skip
        refuse(index, numbers, bad)
        deleted = self._deleted[file]
        if deleted is not None:
            keys = np.searchsorted(index.first_block, numbers, side="right") - 1
            keep_undeleted(times, firsts, counts, keys, deleted.first, deleted.low, deleted.high, kept)

    def _room(self, name: str, size: int) -> U8:
        """Memory that the next group uses again: first use of fresh memory costs more than decoding into it."""
        held = self._scratch.get(name)
        if held is None or len(held) < size:
            held = self._scratch[name] = np.empty(size, np.uint8)
        return held[:size]

    def _alike(self, part: I64) -> I64:
        """For each block the one at the same place in the field before of its series, -1 where there is none."""
        key = self._plan.block_series[part] * len(self._plan.fields) + self._plan.block_field[part]
        begins = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
        lengths = np.diff(np.append(begins, len(key)))
        before = np.append(-1, begins[:-1])
        series = self._plan.block_series[part][begins]
        before[1:][series[1:] != series[:-1]] = -1
        place = np.arange(len(key)) - np.repeat(begins, lengths)
        owner = np.repeat(before, lengths)
        fits = (owner >= 0) & (place < np.repeat(np.append(0, lengths[:-1]), lengths))
        return np.where(fits, owner + place, -1)

    def _rows(
        self,
        part: I64,
        counts: I64,
        firsts: I64,
        times: I64,
        bits: U64,
        kept: U8,
        texts: U8,
        stretch: Window,
    ) -> Iterator[pa.RecordBatch]:
        plan, fields = self._plan, len(self._plan.fields)
        series, position = np.unique(plan.block_series[part], return_inverse=True)
        key = position * fields + plan.block_field[part]
        starts = np.zeros(len(series) * fields, np.int64)
        stops = np.zeros(len(series) * fields, np.int64)
        begins = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
        ends = np.append(begins[1:], len(key)) - 1
        starts[key[begins]] = firsts[begins]
        stops[key[begins]] = firsts[ends] + counts[ends]
        points.settle(times, bits, kept, starts, stops, stretch.start, stretch.end)
        rows = np.zeros(len(series), np.int64)
        points.count_rows(times, starts, stops, fields, rows)
        bounds = np.append(0, np.cumsum(rows))
        total, step = int(bounds[-1]), max(1, BATCH_CELLS // (1 + fields + len(plan.tags)))
        for begin in range(0, total, step):
            end = min(begin + step, total)
            first, last = np.searchsorted(bounds, begin, side="right") - 1, np.searchsorted(bounds, end)
            own = np.minimum(bounds[first + 1 : last + 1], end) - np.maximum(bounds[first:last], begin)
            moments, cells = pooled_words(end - begin).view(np.int64), pooled_words(fields * (end - begin))
            cells = cells.reshape(fields, end - begin)
            nulls = self._room("nulls", cells.size).reshape(cells.shape)
            points.fill_rows(
                times, bits, starts[first * fields : last * fields], stops[first * fields : last * fields],
                fields, own, moments, cells, nulls,
            )  # fmt: skip
            yield self._batch(series[first:last], own, moments, cells, nulls, texts)

    def _batch(self, series: I64, rows: I64, moments: I64, cells: U64, nulls: U8, texts: U8) -> pa.RecordBatch:
        arrays = [pa.array(moments).cast(TIME_TYPE)]
        binary = set(self._plan.binary)
        for tag in self._plan.tags:
            used, codes = np.unique(tag.of(series), return_inverse=True)
            values = tag.values.take(pa.array(used[used >= 0]))
            codes = codes - int(len(used) > 0 and used[0] < 0)
            indices = np.repeat(codes, rows).astype(np.int32)
            values = values if tag.column in self._plan.binary else values.cast(pa.string())
            arrays.append(pa.DictionaryArray.from_arrays(pa.array(indices, mask=indices < 0), values))
        missing = np.count_nonzero(nulls, axis=1).tolist()
        is_sparse = 2 * sum(missing) > cells.size  # then its few values must not hold the memory of all
        for number, (column, kind) in enumerate(self._plan.fields):
            words = cells[number].copy() if is_sparse and missing[number] < len(moments) else cells[number]
            array = _column(kind, words, nulls[number], texts, missing[number])
            if kind == BlockType.STRING:
                if is_utf8(array):
                    array = array.cast(pa.string())
                else:
                    binary.add(column)
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(self._plan.columns, frozenset(binary)))


def refuse(index: TsmIndex, numbers: I64, bad: int) -> None:
    """Raises CorruptShardError when a kernel has named a block that cannot be read though its checksum holds."""
    if bad >= 0:
        raise index.block_error(int(numbers[bad]), "cannot be decoded")


def _column(kind: int, cells: U64, nulls: U8, texts: U8, missing: int) -> Any:
    """One field's values as an Arrow array; strings are binary."""
    if missing == len(nulls):
        return null_column(_ARROW_TYPES[BlockType(kind)], missing)
    mask = nulls.view(np.bool_) if missing else None
    if kind == BlockType.STRING:
        return _texts(cells, nulls, mask, texts)
    if kind == BlockType.BOOLEAN:
        return pa.array(cells.astype(np.bool_), mask=mask)
    if kind == BlockType.FLOAT:
        return pa.array(cells.view(np.float64), mask=mask)
    return pa.array(cells.view(np.int64) if kind == BlockType.INTEGER else cells, mask=mask)


def _texts(cells: U64, nulls: U8, mask: npt.NDArray[np.bool_] | None, texts: U8) -> Any:
    offsets = np.empty(len(cells) + 1, np.int64)
    points.text_sizes(texts, cells, nulls, offsets)
    size = int(offsets[-1])
    if size > MOST_TEXT:
        raise IncompleteReadError(
            f"{len(cells)} strings of a field have {size} bytes, too many for one batch.", kind="read-limit"
        )
    out = np.frombuffer(pa.allocate_buffer(size), np.uint8)  # of the pool, which gives back what long texts had
    points.gather_texts(texts, cells, nulls, offsets, out)
    valid = None if mask is None else pa.array(~mask).buffers()[1]
    buffers = [valid, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(out)]
    return pa.Array.from_buffers(pa.binary(), len(cells), buffers)
