"""
The points of one shard from copies of its files, as the record batches that a query of the server would give.

Later files win, deleted ranges are left out, and every block's checksum is proved before a point of it is given, which
no server does (run on 1.6.7, 1.12.4 and 2.9.1). Needs numba.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from influxdb_backup.columns import TIME_TYPE, arrow_schema
from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.protocol import ReadOptions
from influxdb_backup.influx.shard_plan import TablePlan, plan_tables
from influxdb_backup.influx.tsm import points
from influxdb_backup.influx.tsm.format import BlockType
from influxdb_backup.influx.tsm.index import CorruptShardError, TsmIndex, read_index
from influxdb_backup.influx.tsm.tombstones import read_tombstones
from influxdb_backup.model import Column, Window, decode_name, encode_name

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

GROUP_VALUES = 1 << 20
"""values that are decoded at once, unless a single series has more at one stretch of time"""
GROUP_TEXT = 32 << 20
"""and plain bytes of their strings"""
_MOST_TEXT = 2**31 - 1


@dataclass(frozen=True)
class ShardFile:
    """One TSM file: its name, its bytes (a map of the file will do) and those of its tombstone."""

    name: str
    data: U8
    tombstone: bytes | None = None


class ShardPoints:
    """
    The points of one shard. Thread-safe once it is made.

    Raises CorruptShardError, naming file, series and times, when a file is not as the server wrote it.
    """

    def __init__(self, files: Sequence[ShardFile]) -> None:
        ordered = sorted(files, key=lambda file: _generation(file.name))
        self._indexes = [read_index(file.name, file.data) for file in ordered]
        self._deleted = [_deleted(file, index) for file, index in zip(ordered, self._indexes, strict=True)]

    @cached_property
    def _plans(self) -> Mapping[bytes, TablePlan]:
        return plan_tables(self._indexes)

    @property
    def tables(self) -> Mapping[str, tuple[Column, ...]]:
        """Measurements with the tags and fields that they have in this shard, also those whose points are deleted."""
        return {decode_name(name): plan.columns for name, plan in self._plans.items()}

    @property
    def files(self) -> int:
        """The number of TSM files."""
        return len(self._indexes)

    def damages(self, window: Window | None) -> list[CorruptShardError]:
        """An error for each block that is not as it was written and has points of the window; of any for None."""
        return [
            index.block_error(number, "has another checksum than was written")
            for index in self._indexes
            for number in index.damaged.tolist()
            if window is None or (index.block_min[number] < window.end and index.block_max[number] >= window.start)
        ]

    def batches(self, measurement: str, window: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """The measurement's points in a half-open window: series contiguous, times ascending; none when it has none."""
        plan = self._plans.get(encode_name(measurement))
        if plan is None:
            return
        lowest, highest = self._of_blocks(plan, "block_min"), self._of_blocks(plan, "block_max")
        chosen = np.flatnonzero((lowest < window.end) & (highest >= window.start))
        counts, rooms = self._measured(plan, chosen)
        reader = _TableReader(self._indexes, self._deleted, plan, lowest, highest)
        for part, stretch in _groups(plan, chosen, counts, rooms, lowest, window):
            own = np.isin(chosen, part)
            for batch in reader.read(part, counts[own], rooms[own], stretch):
                yield from _cut(batch, options)

    def _of_blocks(self, plan: TablePlan, what: str) -> I64:
        return _gathered([getattr(index, what) for index in self._indexes], plan.block_file, plan.block_number)

    def _measured(self, plan: TablePlan, chosen: I64) -> tuple[I64, I64]:
        counts, rooms = np.zeros(len(chosen), np.int64), np.zeros(len(chosen), np.int64)
        kinds = np.array([kind for _, kind in plan.fields], np.int64)[plan.block_field[chosen]]
        for file, index in enumerate(self._indexes):
            own = np.flatnonzero(plan.block_file[chosen] == file)
            numbers = plan.block_number[chosen[own]]
            for number in np.intersect1d(numbers, index.damaged).tolist():
                raise index.block_error(number, "has another checksum than was written")
            found, room = np.zeros(len(own), np.int64), np.zeros(len(own), np.int64)
            places, sizes = index.block_at[numbers], index.block_size[numbers]
            _refuse(index, numbers, points.measure_blocks(index.data, places, sizes, kinds[own], found, room))
            counts[own], rooms[own] = found, room
        return counts, rooms


def _generation(name: str) -> tuple[int, int]:
    first, second = name.removesuffix(".tsm").split("-")[:2]
    return int(first), int(second)


def _deleted(file: ShardFile, index: TsmIndex) -> dict[int, tuple[I64, I64]]:
    """By position of the key in the file: first and last instants of the deleted ranges."""
    if not file.tombstone:
        return {}
    ranges: dict[bytes, list[tuple[int, int]]] = {}
    for key, low, high in read_tombstones(f"{file.name} (its tombstone)", file.tombstone):
        ranges.setdefault(key, []).append((low, high))
    found = {}
    for number in range(len(index.kinds)):
        own = ranges.get(index.key(number))
        if own:
            low, high = np.array(own, np.int64).T
            found[number] = (np.ascontiguousarray(low), np.ascontiguousarray(high))
    return found


def _gathered(columns: Sequence[I64], files: I64, numbers: I64) -> I64:
    out = np.zeros(len(files), np.int64)
    for file, column in enumerate(columns):
        own = files == file
        out[own] = column[numbers[own]]
    return out


def _refuse(index: TsmIndex, numbers: I64, bad: int) -> None:
    """Raises CorruptShardError when a kernel has named a block that cannot be read though its checksum holds."""
    if bad < 0:
        return
    raise index.block_error(int(numbers[bad]), "cannot be decoded")


def _groups(
    plan: TablePlan, chosen: I64, counts: I64, rooms: I64, lowest: I64, window: Window
) -> Iterator[tuple[I64, Window]]:
    """Blocks that are decoded together, whole series as far as they fit, and the stretch of time of each group."""
    if not len(chosen):
        return
    series = plan.block_series[chosen]
    starts = np.flatnonzero(np.append(True, series[1:] != series[:-1]))
    stops = np.append(starts[1:], len(chosen))
    values = np.append(0, np.cumsum(counts))
    texts = np.append(0, np.cumsum(rooms))
    first = 0
    while first < len(starts):
        begin = int(starts[first])
        room = np.searchsorted(values[stops], values[begin] + GROUP_VALUES, side="right")
        text = np.searchsorted(texts[stops], texts[begin] + GROUP_TEXT, side="right")
        last = max(first + 1, int(min(room, text)))
        part = chosen[begin : int(stops[last - 1])]
        if last == first + 1:
            own = slice(begin, int(stops[first]))
            yield from _stretches(part, counts[own], rooms[own], lowest[part], window)
        else:
            yield part, window
        first = last


def _stretches(part: I64, counts: I64, rooms: I64, lowest: I64, window: Window) -> Iterator[tuple[I64, Window]]:
    """One series in stretches of time that hold few enough values."""
    begins = np.unique(lowest)
    pieces = int(max(counts.sum() // GROUP_VALUES, rooms.sum() // GROUP_TEXT)) + 1
    edges = [int(edge) for edge in begins[:: max(1, -(-len(begins) // pieces))][1:] if window.start < edge < window.end]
    for start, end in zip([window.start, *edges], [*edges, window.end], strict=True):
        yield part, Window(start=start, end=end)


class _TableReader:
    """Decodes groups of blocks of one measurement."""

    def __init__(
        self,
        indexes: Sequence[TsmIndex],
        deleted: Sequence[Mapping[int, tuple[I64, I64]]],
        plan: TablePlan,
        lowest: I64,
        highest: I64,
    ) -> None:
        self._indexes = indexes
        self._deleted = deleted
        self._plan = plan
        self._lowest = lowest
        self._highest = highest
        self._binary = frozenset(tag.column for tag in plan.tags if not _is_utf8(tag.values))
        self._scratch: dict[str, U8] = {}

    def read(self, part: I64, counts: I64, rooms: I64, stretch: Window) -> Iterator[pa.RecordBatch]:
        """The rows of these blocks (positions in the plan) within the stretch, as at most one batch."""
        inside = (self._lowest[part] < stretch.end) & (self._highest[part] >= stretch.start)
        part, counts, rooms = part[inside], counts[inside], rooms[inside]
        if not len(part):
            return
        firsts, text_firsts = np.cumsum(counts) - counts, np.cumsum(rooms) - rooms
        total = int(counts.sum())
        times, bits = self._room("times", 8 * total).view(np.int64), self._room("bits", 8 * total).view(np.uint64)
        kept, texts = self._room("kept", total), self._room("texts", int(rooms.sum()))
        kept[:] = 1
        for file, index in enumerate(self._indexes):
            own = np.flatnonzero(self._plan.block_file[part] == file)
            if not len(own):
                continue
            self._decode(file, index, part[own], counts[own], firsts[own], text_firsts[own], times, bits, kept, texts)
        yield from self._rows(part, counts, firsts, times, bits, kept, texts, stretch)

    def _decode(
        self,
        file: int,
        index: TsmIndex,
        part: I64,
        counts: I64,
        firsts: I64,
        text_firsts: I64,
        times: I64,
        bits: npt.NDArray[np.uint64],
        kept: U8,
        texts: U8,
    ) -> None:
        numbers = self._plan.block_number[part]
        kinds = np.array([kind for _, kind in self._plan.fields], np.int64)[self._plan.block_field[part]]
        bad = points.decode_blocks(
            index.data, index.block_at[numbers], index.block_size[numbers], kinds, index.block_min[numbers],
            index.block_max[numbers], self._alike(part), counts, firsts, text_firsts, times, bits, texts,
        )  # fmt: skip
        _refuse(index, numbers, bad)
        if self._deleted[file]:
            keys = np.searchsorted(index.first_block, numbers, side="right") - 1
            for position, key in enumerate(keys.tolist()):
                ranges = self._deleted[file].get(key)
                if ranges:
                    points.keep_undeleted(times, int(firsts[position]), int(counts[position]), *ranges, kept)

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
        bits: npt.NDArray[np.uint64],
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
        total = int(rows.sum())
        if not total:
            return
        moments, cells = _pooled(total).view(np.int64), _pooled(fields * total).reshape(fields, total)
        nulls = self._room("nulls", fields * total).reshape(fields, total)
        points.fill_rows(times, bits, starts, stops, fields, rows, moments, cells, nulls)
        yield self._batch(series, rows, moments, cells, nulls, texts)

    def _batch(
        self, series: I64, rows: I64, moments: I64, cells: npt.NDArray[np.uint64], nulls: U8, texts: U8
    ) -> pa.RecordBatch:
        arrays = [pa.array(moments).cast(TIME_TYPE)]
        binary = set(self._binary)
        for tag in self._plan.tags:
            used, codes = np.unique(tag.codes[series], return_inverse=True)
            values = tag.values.take(pa.array(used[used >= 0]))
            codes = codes - int(len(used) > 0 and used[0] < 0)
            indices = np.repeat(codes, rows).astype(np.int32)
            values = values if tag.column in self._binary else values.cast(pa.string())
            arrays.append(pa.DictionaryArray.from_arrays(pa.array(indices, mask=indices < 0), values))
        for number, (column, kind) in enumerate(self._plan.fields):
            array = _column(kind, cells[number], nulls[number], texts)
            if kind == BlockType.STRING:
                if _is_utf8(array):
                    array = array.cast(pa.string())
                else:
                    binary.add(column)
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(self._plan.columns, frozenset(binary)))


def _pooled(count: int) -> npt.NDArray[np.uint64]:
    """Words in memory of Arrow's pool, which takes it back with the batches that are made of it."""
    return np.frombuffer(pa.allocate_buffer(8 * count), np.uint64)


def _is_utf8(values: Any) -> bool:
    try:
        values.cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True


def _column(kind: int, cells: npt.NDArray[np.uint64], nulls: U8, texts: U8) -> Any:
    """One field's values as an Arrow array; strings are binary."""
    mask = nulls.view(np.bool_) if nulls.any() else None
    if kind == BlockType.STRING:
        return _texts(cells, nulls, mask, texts)
    if kind == BlockType.BOOLEAN:
        return pa.array(cells.astype(np.bool_), mask=mask)
    if kind == BlockType.FLOAT:
        return pa.array(cells.view(np.float64), mask=mask)
    return pa.array(cells.view(np.int64) if kind == BlockType.INTEGER else cells, mask=mask)


def _texts(cells: npt.NDArray[np.uint64], nulls: U8, mask: npt.NDArray[np.bool_] | None, texts: U8) -> Any:
    offsets = np.empty(len(cells) + 1, np.int64)
    points.text_sizes(texts, cells, nulls, offsets)
    size = int(offsets[-1])
    if size > _MOST_TEXT:
        raise IncompleteReadError(
            f"{len(cells)} strings of a field have {size} bytes, too many for one batch.", kind="read-limit"
        )
    out = np.empty(size, np.uint8)
    points.gather_texts(texts, cells, nulls, offsets, out)
    valid = None if mask is None else pa.array(~mask).buffers()[1]
    buffers = [valid, pa.py_buffer(offsets.astype(np.int32)), pa.py_buffer(out)]
    return pa.Array.from_buffers(pa.binary(), len(cells), buffers)


def _cut(batch: pa.RecordBatch, options: ReadOptions) -> Iterator[pa.RecordBatch]:
    """The batch in slices within the bounds of a read."""
    step = max(1, min(options.batch_rows, batch.num_rows * options.batch_bytes // max(1, batch.nbytes)))
    for first in range(0, batch.num_rows, step):
        yield batch.slice(first, step)
