"""
The points of one shard from copies of its files, as the record batches that a query of the server would give.

Later files win, deleted ranges are left out, and every block's checksum is proved before a point of it is given, which
no server does (run on 1.6.7, 1.12.4 and 2.9.1). Needs numba.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from influxdb_backup.influx.protocol import ReadOptions
from influxdb_backup.influx.shard_chunks import TableOutline, chunked, outlines
from influxdb_backup.influx.shard_plan import TablePlan, plan_tables
from influxdb_backup.influx.shard_sample import BlockExtents
from influxdb_backup.influx.shard_stretches import groups
from influxdb_backup.influx.shard_tables import TableReader, refuse
from influxdb_backup.influx.tsm import points
from influxdb_backup.influx.tsm.index import (
    MARK_KEYS,
    CorruptShardError,
    TsmFile,
    TsmIndex,
    open_file,
    stretches_to_map,
)
from influxdb_backup.influx.tsm.tombstones import DeletedRanges, read_tombstones
from influxdb_backup.model import Column, InfluxType, Window, decode_name, encode_name
from influxdb_backup.resident import let_go_of_file

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

_HELD = 4
"""stretches of keys"""
_TOMBSTONE_KEYS = 1 << 20


@dataclass(frozen=True)
class ShardFile:
    """One TSM file: its name, its bytes (a map of the file will do) and those of its tombstone."""

    name: str
    data: U8
    tombstone: bytes | U8 | None = None
    rank: int = 0
    """of its shard among others of the same times: the points of a higher one win"""


@dataclass(frozen=True)
class _Opened:
    """One stretch of the shard's keys, read."""

    indexes: Sequence[TsmIndex]
    deleted: Sequence[DeletedRanges | None]
    plans: Mapping[bytes, TablePlan]


class ShardPoints:
    """
    The points of one shard. Thread-safe once it is made.

    Raises CorruptShardError, naming file, series and times, when a file is not as the server wrote it.
    """

    def __init__(self, files: Sequence[ShardFile]) -> None:
        ordered = sorted(files, key=lambda file: (file.rank, _generation(file.name)))
        self.sources = tuple(ordered)
        self._files = [open_file(file.name, file.data) for file in ordered]
        self._deleted = [_deleted(file, opened) for file, opened in zip(ordered, self._files, strict=True)]
        self._chunks = chunked(self._files)
        self._held: dict[int, _Opened] = {}
        self._lock = threading.Lock()

    def _opened(self, number: int) -> _Opened:
        """A stretch; the last few are kept, since many small tables can be in one."""
        with self._lock:
            held = self._held.pop(number, None)
            if held is not None:
                self._held[number] = held
                return held
        ranges = self._chunks[number]
        indexes = [file.index(*marks) for file, marks in zip(self._files, ranges, strict=True)]
        deleted = [
            found and DeletedRanges(found.first[first.keys : last.keys + 1], found.low, found.high)
            for found, (first, last) in zip(self._deleted, ranges, strict=True)
        ]
        opened = _Opened(indexes, deleted, plan_tables(indexes))
        for index in indexes:
            let_go_of_file(index.data)
        with self._lock:
            self._held[number] = opened
            while len(self._held) > _HELD:
                del self._held[next(iter(self._held))]
        return opened

    @cached_property
    def _outlines(self) -> Mapping[bytes, TableOutline]:
        name = self._files[0].name if self._files else ""
        return outlines((self._opened(number).plans for number in range(len(self._chunks))), name)

    @cached_property
    def tables(self) -> Mapping[str, tuple[Column, ...]]:
        """Measurements with the tags and fields that they have in this shard, also those whose points are deleted."""
        return {decode_name(name): outline.columns for name, outline in self._outlines.items()}

    @property
    def files(self) -> int:
        """The number of TSM files."""
        return len(self._files)

    def damages(self, window: Window | None) -> list[CorruptShardError]:
        """An error for each block that is not as it was written and has points of the window; of any for None."""
        return [
            error
            for file in self._files
            for low, high, error in file.damages()
            if window is None or (low < window.end and high >= window.start)
        ]

    def extents(self, measurement: str) -> BlockExtents | None:
        """
        Of the measurement's blocks, or of those of a part of its series when it has very many; None of none.

        Texts are left out where there are other fields: a server takes twice as long to read them.
        """
        name = encode_name(measurement)
        outline = self._outlines.get(name)
        if outline is None:
            return None
        opened = self._opened(outline.chunks[0])
        plan = opened.plans[name]
        first, last = _extents(opened, plan)
        fields = tuple(column.name for column, _ in plan.fields)
        numbers = [place for place, (column, _) in enumerate(plan.fields) if column.type is not InfluxType.STRING]
        kept = np.isin(plan.block_field, numbers) if numbers else np.ones(len(first), np.bool_)
        return BlockExtents(first[kept], last[kept], plan.block_field[kept], fields)

    def batches(self, measurement: str, window: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """The measurement's points in a half-open window: series contiguous, times ascending; none when it has none."""
        name = encode_name(measurement)
        outline = self._outlines.get(name)
        if outline is None:
            return
        scratch: dict[str, U8] = {}
        for number in outline.chunks:
            opened = self._opened(number)
            for batch in _batches(opened, outline.whole(opened.plans[name]), window, scratch):
                yield from _cut(batch, options)


def _batches(opened: _Opened, plan: TablePlan, window: Window, scratch: dict[str, U8]) -> Iterator[pa.RecordBatch]:
    lowest, highest = _extents(opened, plan)
    chosen = np.flatnonzero((lowest < window.end) & (highest >= window.start))
    counts, rooms = _measured(opened.indexes, plan, chosen)
    reader = TableReader(opened.indexes, opened.deleted, plan, lowest, highest, scratch)
    for part, stretch in groups(plan, chosen, counts, rooms, lowest[chosen], window):
        yield from reader.read(chosen[part], counts[part], rooms[part], stretch)


def _extents(opened: _Opened, plan: TablePlan) -> tuple[I64, I64]:
    """First and last times of the plan's blocks."""
    return (
        _gathered([index.block_min for index in opened.indexes], plan.block_file, plan.block_number),
        _gathered([index.block_max for index in opened.indexes], plan.block_file, plan.block_number),
    )


def _measured(indexes: Sequence[TsmIndex], plan: TablePlan, chosen: I64) -> tuple[I64, I64]:
    counts, rooms = np.zeros(len(chosen), np.int64), np.zeros(len(chosen), np.int64)
    kinds = plan.kinds_of(chosen)
    for file, index in enumerate(indexes):
        own = np.flatnonzero(plan.block_file[chosen] == file)
        numbers = plan.block_number[chosen[own]]
        for number in np.intersect1d(numbers, index.damaged).tolist():
            raise index.block_error(number, "has another checksum than was written")
        found, room = np.zeros(len(own), np.int64), np.zeros(len(own), np.int64)
        places, sizes = index.block_at[numbers], index.block_size[numbers]
        for first, last in stretches_to_map(sizes):
            part = slice(first, last)
            bad = points.measure_blocks(
                index.data, places[part], sizes[part], kinds[own[part]], found[part], room[part]
            )
            refuse(index, numbers[part], bad)
            let_go_of_file(index.data)
        counts[own], rooms[own] = found, room
    return counts, rooms


def _generation(name: str) -> tuple[int, int]:
    first, second = name.removesuffix(".tsm").split("-")[:2]
    return int(first), int(second)


def _deleted(file: ShardFile, opened: TsmFile) -> DeletedRanges | None:
    """Of all keys of a file, found for many keys at a time: their times have to be known for that."""
    if file.tombstone is None:
        return None
    firsts, lows, highs = [np.zeros(1, np.int64)], [], []
    step = max(1, _TOMBSTONE_KEYS // MARK_KEYS)
    for mark in range(0, len(opened.marks) - 1, step):
        ends = opened.marks[mark], opened.marks[min(mark + step, len(opened.marks) - 1)]
        found = read_tombstones(f"{file.name} (its tombstone)", file.tombstone, opened.index(*ends))
        before = firsts[-1][-1]
        own = found.first[1:] if found else np.zeros(ends[1].keys - ends[0].keys, np.int64)
        firsts.append(own + before)
        if found:
            lows.append(found.low)
            highs.append(found.high)
    if not lows:
        return None
    return DeletedRanges(np.concatenate(firsts), np.concatenate(lows), np.concatenate(highs))


def _gathered(columns: Sequence[I64], files: I64, numbers: I64) -> I64:
    out = np.zeros(len(files), np.int64)
    for file, column in enumerate(columns):
        own = files == file
        out[own] = column[numbers[own]]
    return out


def _cut(batch: pa.RecordBatch, options: ReadOptions) -> Iterator[pa.RecordBatch]:
    """The batch in slices within the bounds of a read."""
    step = max(1, min(options.batch_rows, batch.num_rows * options.batch_bytes // max(1, batch.nbytes)))
    for first in range(0, batch.num_rows, step):
        yield batch.slice(first, step)
