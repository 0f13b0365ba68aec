"""
Stretches of time that several shards hold: their points as one, and the error where they contradict each other.

A query over such a stretch sees all of these shards. It gives the values of one type only, counts only these, and gives
a point that two of them have twice (run on 1.6.7, 1.12.4 and 2.9.1). Which of two values is the newer one nobody knows:
a point goes to the group that ends first, unless an earlier point of the same request lies in a later group, which then
takes both (run on 1.6.7). So neither the groups' numbers nor the order of their files tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import pyarrow as pa

from influxdb_backup.columns import arrow_schema, batch_columns, binary_columns
from influxdb_backup.errors import SourceError
from influxdb_backup.fingerprint import TableFingerprint, add_fingerprints, fingerprint_batches
from influxdb_backup.influx.pieces import named
from influxdb_backup.influx.protocol import ReadOptions, ShardCopy, ShardReport
from influxdb_backup.influx.shard_door import ShardInfo
from influxdb_backup.model import Column, InfluxType, Role, Table, TableSchema, Window, printable
from influxdb_backup.windows import format_window

_SHORTER = "shorter windows, of which each has one of the types, can be backed up"
_DELETE = (
    "Delete what is wrong (DELETE FROM the measurement WHERE time and tags of the points: it reaches all groups) and "
    "write the right points again"
)


def overlap_error(table: Table, piece: Window, shards: Sequence[ShardInfo], what: str, hint: str) -> SourceError:
    """The error for a table of which several shards hold the same times; ``shards`` as far as they are known."""
    held = f"the shards {named(shards)} overlap there" if shards else "several shard groups overlap there"
    return SourceError(
        f"{table} in {format_window(piece)} cannot be read for certain, since {held}: {what}.",
        kind="overlapping-groups",
        hint=hint,
    )


def mixed_types(table: Table, piece: Window, shards: Sequence[ShardInfo], what: str) -> SourceError:
    """The error for values of several types in the same stretch, which no server takes in one shard."""
    return overlap_error(
        table, piece, shards, what, f"{_DELETE}; or leave it out (exclude_measurements). Else only {_SHORTER}."
    )


def doubled_points(table: Table, piece: Window, shards: Sequence[ShardInfo], what: str) -> SourceError:
    """The error for points of which several shards have different values."""
    return overlap_error(table, piece, shards, what, f"{_DELETE}; or leave it out (exclude_measurements).")


class OverlappingShards:
    """
    The ``ShardCopy`` of shards that hold the same times.

    ``alone`` are copies of the shards one by one, ``joined(n)`` is one of the files of all, in which the n-th shard's
    points win.
    """

    def __init__(
        self, shards: Sequence[ShardInfo], alone: Sequence[ShardCopy], joined: Callable[[int], ShardCopy]
    ) -> None:
        self._shards = tuple(shards)
        self._alone = tuple(alone)
        self._joined = joined
        self._known: dict[tuple[Table, Window], list[TableFingerprint]] = {}

    @property
    def files(self) -> int:
        """See ``ShardCopy.files``."""
        return sum(copy.files for copy in self._alone)

    def scrub(self) -> ShardReport:
        """See ``ShardCopy.scrub``; a point that two shards have counts twice."""
        reports = [copy.scrub() for copy in self._alone]
        return ShardReport(
            sum(report.rows for report in reports),
            tuple(dict.fromkeys(damage for report in reports for damage in report.damages)),
        )

    def measurements(self) -> frozenset[str]:
        """See ``ShardCopy.measurements``."""
        return frozenset().union(*(copy.measurements() for copy in self._alone))

    def holds(self, measurement: str, piece: Window) -> bool:
        """See ``ShardCopy.holds``."""
        return any(copy.holds(measurement, piece) for copy in self._alone)

    def sample(self, measurement: str, piece: Window) -> None:  # noqa: ARG002 - what a query counts of them is no plain sum
        """See ``ShardCopy.sample``."""
        return

    def stored(self, schema: TableSchema, piece: Window) -> Mapping[str, int]:
        """See ``ShardCopy.stored``: of every shard, so that a point that two of them have counts twice."""
        counts: Counter[str] = Counter()
        for found in self._each(schema, piece):
            for count in found.counts:
                counts[count.name] += count.count
        return counts

    def read(self, schema: TableSchema, piece: Window, options: ReadOptions) -> Iterator[pa.RecordBatch]:
        """
        See ``ShardCopy.read``: the points of all, a point that several have once, their fields side by side.

        Raises SourceError (``overlapping-groups``) when a field has several types in the piece, and when two shards
        have different values of one point.
        """
        each = self._each(schema, piece)
        types = self._types(schema.table, piece, each)
        whole = self._of(self._joined(0), schema, piece)
        if whole.values != sum(found.values for found in each):
            self._refuse_contradiction(schema, piece, whole)
        elif whole.hexadecimal != add_fingerprints(found.hexadecimal for found in each):
            raise AssertionError(f"The points of {schema.table} were changed when its shards were joined.")
        for batch in self._joined(0).read(schema, piece, options):
            yield _of_types(batch, types)

    def _each(self, schema: TableSchema, piece: Window) -> list[TableFingerprint]:
        key = schema.table, piece
        if key not in self._known:
            self._known[key] = [self._of(copy, schema, piece) for copy in self._alone]
        return self._known[key]

    def _of(self, copy: ShardCopy, schema: TableSchema, piece: Window) -> TableFingerprint:
        return fingerprint_batches(schema.table.measurement, copy.read(schema, piece, ReadOptions()))

    def _types(self, table: Table, piece: Window, each: Sequence[TableFingerprint]) -> dict[str, InfluxType]:
        types: dict[str, dict[InfluxType, list[ShardInfo]]] = {}
        for shard, found in zip(self._shards, each, strict=True):
            for count in found.counts:
                types.setdefault(count.name, {}).setdefault(count.type, []).append(shard)
        for name, kinds in types.items():
            if len(kinds) > 1:
                told = " and ".join(
                    f"{kind.value} in shard {', '.join(str(shard.id) for shard in shards)}"
                    for kind, shards in kinds.items()
                )
                raise mixed_types(table, piece, self._shards, f"its field {printable(name)} is {told}")
        return {name: next(iter(kinds)) for name, kinds in types.items()}

    def _refuse_contradiction(self, schema: TableSchema, piece: Window, whole: TableFingerprint) -> None:
        """Raises the error unless the content is the same whichever shard wins."""
        for last in range(1, len(self._shards)):
            if self._of(self._joined(last), schema, piece).value != whole.value:
                raise doubled_points(
                    schema.table, piece, self._shards, "they have different values of the same points, and nothing "
                    "tells which is the newer one",
                )  # fmt: skip


def _of_types(batch: pa.RecordBatch, types: Mapping[str, InfluxType]) -> pa.RecordBatch:
    """The batch without columns of types that a field has no value of; a field without any value keeps its first."""
    columns = batch_columns(batch.schema)
    kept: dict[int, Column] = {}
    seen: set[str] = set()
    for position, column in enumerate(columns, start=1):
        if column.role is Role.FIELD:
            if types.get(column.name, column.type) is not column.type or column.name in seen:
                continue
            seen.add(column.name)
        kept[position] = column
    if len(kept) == len(columns):
        return batch
    arrays = [batch.column(position) for position in (0, *kept)]
    binary = binary_columns(batch.schema) & frozenset(kept.values())
    return pa.RecordBatch.from_arrays(arrays, schema=arrow_schema(tuple(kept.values()), binary))
