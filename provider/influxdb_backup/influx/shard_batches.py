"""
The points of one shard from copies of its files, as the record batches that a query of the server would give.

Later files win, deleted ranges are left out, and every block's checksum is proved before a point of it is given, which
no server does (run on 1.6.7, 1.12.4 and 2.9.1). Needs numba.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from influxdb_backup.influx.protocol import ReadOptions
from influxdb_backup.influx.shard_plan import TablePlan, plan_tables
from influxdb_backup.influx.shard_stretches import groups
from influxdb_backup.influx.shard_tables import TableReader, refuse
from influxdb_backup.influx.tsm import points
from influxdb_backup.influx.tsm.index import CorruptShardError, TsmIndex, read_index
from influxdb_backup.influx.tsm.tombstones import DeletedRanges, read_tombstones
from influxdb_backup.model import Column, Window, decode_name, encode_name

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ShardFile:
    """One TSM file: its name, its bytes (a map of the file will do) and those of its tombstone."""

    name: str
    data: U8
    tombstone: bytes | U8 | None = None


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
        reader = TableReader(self._indexes, self._deleted, plan, lowest, highest)
        for part, stretch in groups(plan, chosen, counts, rooms, lowest[chosen], window):
            for batch in reader.read(chosen[part], counts[part], rooms[part], stretch):
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
            refuse(index, numbers, points.measure_blocks(index.data, places, sizes, kinds[own], found, room))
            counts[own], rooms[own] = found, room
        return counts, rooms


def _generation(name: str) -> tuple[int, int]:
    first, second = name.removesuffix(".tsm").split("-")[:2]
    return int(first), int(second)


def _deleted(file: ShardFile, index: TsmIndex) -> DeletedRanges | None:
    if file.tombstone is None:
        return None
    return read_tombstones(f"{file.name} (its tombstone)", file.tombstone, index)


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
