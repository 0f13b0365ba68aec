"""Reading one table in one piece of the window, and the proof that everything came."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa

from influxdb_backup.archive.attempt import Attempt
from influxdb_backup.archive.parts import PartWriter
from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.protocol import ReadOptions, Server
from influxdb_backup.jobs.ahead import ahead
from influxdb_backup.messages import logger_of
from influxdb_backup.model import Column, Part, SourceCount, TableSchema, Window, printable
from influxdb_backup.windows import format_window, halve

logger = logger_of(__name__)

_ATTEMPTS = 4
"""reads of one piece before it fails"""
_WORTH_A_THREAD = 100_000
"""rows of a piece whose last ones are encoded while the server counts"""

T = TypeVar("T")
Refresh = Callable[[], TableSchema]
"""reads the table's schema again"""
ReadBatches = Callable[[TableSchema, Window, ReadOptions], Iterator[pa.RecordBatch]]
"""the points of one table in one piece, as ``Server.read`` gives them"""


def read_whole(
    read: Callable[[TableSchema, Window], T], schema: TableSchema, refresh: Refresh, piece: Window
) -> tuple[list[T], TableSchema]:
    """
    What ``read`` returns for the piece, or for each of the halves that it takes; and the schema that it took.

    A read that finds a column which the schema does not have (or which holds bytes that are not UTF-8) is made again
    with a new schema, one that a limit or a cut stream ended is halved in time. Raises IncompleteReadError when that
    does not help.
    """
    surprises = 0
    while True:
        try:
            return [read(schema, piece)], schema
        except IncompleteReadError as error:
            if error.kind == "schema-changed" and surprises < len(schema.columns) + _ATTEMPTS:
                schema, surprises = refresh(), surprises + 1
                continue
            halves = halve(piece) if error.kind == "read-limit" else None
            if halves is None:
                raise
        results = []
        for half in halves:
            found, schema = read_whole(read, schema, refresh, half)
            results += found
        return results, schema


@dataclass(frozen=True)
class PieceResult:
    """The parts of one table in one piece, with what the server said it holds."""

    parts: tuple[Part, ...]
    counts: tuple[SourceCount, ...]
    columns: frozenset[Column]
    """tags and fields that the server listed when it was read"""


@dataclass
class _Read:
    """One read whose counts are the server's; its last points may wait to be encoded and uploaded."""

    count: SourceCount
    writer: PartWriter | None
    """None when it gave no points"""

    def parts(self) -> tuple[Part, ...]:
        """Its parts, finished by the first call."""
        return self.writer.close() if self.writer else ()


@dataclass(frozen=True)
class PieceReader:
    """Everything that reading a piece needs besides the piece."""

    server: Server
    database: str
    attempt: Attempt
    number: int
    schema: TableSchema
    refresh: Refresh
    """reads the table's schema again, after a column appeared that it does not have"""
    on_batch: Callable[[int, int], None]
    """called with rows and bytes of each batch"""
    on_read: Callable[[], None] = lambda: None
    """called when the server is no longer needed, before the last points are encoded and uploaded"""
    read_shard: ReadBatches | None = None
    """reads from a copy of the piece's shard, which is tried once; None where there is none"""
    options: ReadOptions = field(default_factory=ReadOptions)

    def read(self, piece: Window) -> PieceResult:
        """
        The piece's parts, committed to nothing yet.

        A copy of the shard whose counts differ from the server's is left for queries. Counts that differ there are read
        again. Raises IncompleteReadError when they keep differing.
        """
        reads: list[_Read] = []

        def proved(schema: TableSchema, window: Window) -> None:
            for read in reads:
                read.parts()  # of one half before the other is read: one writer's rows are in memory
            reads.append(self._read_proved(schema, window))

        try:
            _, schema = read_whole(proved, self.schema, self.refresh, piece)
            self.on_read()
            parts = tuple(part for read in reads for part in read.parts())
        except BaseException:
            for read in reads:
                _discard(read.writer)
            raise
        return PieceResult(parts, tuple(read.count for read in reads), frozenset(schema.columns))

    def _read_proved(self, schema: TableSchema, piece: Window) -> _Read:
        before = None
        difference = ""
        for attempt in range(_ATTEMPTS):
            from_shard = self.read_shard is not None and attempt == 0
            writer, after = (self._read_and_count if from_shard else self._read_then_count)(schema, piece)
            read = writer.totals if writer else {}
            moved = before is not None and _between(before, read, after)
            if read == after or moved:
                counts = tuple((name, after[name]) for name in sorted(after))
                source = SourceCount(
                    table=schema.table,
                    window=piece,
                    counts=counts,
                    moved=read != after,
                    reader="shard" if from_shard else "query",
                )
                return _Read(source, writer)
            _discard(writer)
            difference = _difference(read, after)
            if from_shard:
                logger.warning(
                    "%s in %s is read by queries, since its shard's copy differs from the server's counts: %s",
                    schema.table,
                    format_window(piece),
                    difference,
                )
            before = after
        raise IncompleteReadError(
            f"The table {schema.table} in {format_window(piece)} cannot be read whole from {self.server.name}: "
            f"{difference}",
            hint="If the window is still being written, wait for it to settle; otherwise look at the server's log.",
        )

    def _read_then_count(self, schema: TableSchema, piece: Window) -> tuple[PartWriter | None, dict[str, int]]:
        writer = self._read_once(schema, piece, from_shard=False)
        try:
            if writer is None or writer.rows < _WORTH_A_THREAD:
                return writer, self._counts(schema, piece)
            with ThreadPoolExecutor(1, thread_name_prefix="count") as pool:
                counting = pool.submit(self._counts, schema, piece)
                writer.close()  # beside it, since the server counts for a while
                return writer, counting.result()
        except BaseException:
            _discard(writer)
            raise

    def _read_and_count(self, schema: TableSchema, piece: Window) -> tuple[PartWriter | None, dict[str, int]]:
        """Both at once: the server counts what it holds after the copy was made, while the copy is decoded here."""
        with ThreadPoolExecutor(1, thread_name_prefix="count") as pool:
            counting = pool.submit(self._counts, schema, piece)
            writer = self._read_once(schema, piece, from_shard=True)
            try:
                return writer, counting.result()
            except BaseException:
                _discard(writer)
                raise

    def is_still_true(self, result: PieceResult) -> bool:
        """Whether the server counts what it counted when the piece was read, after a new tag or field appeared."""
        return all(self._counts(self.schema, count.window) == dict(count.counts) for count in result.counts)

    def _batches(self, schema: TableSchema, piece: Window, *, from_shard: bool) -> Iterator[pa.RecordBatch]:
        if from_shard and self.read_shard is not None:
            return self.read_shard(schema, piece, self.options)
        return self.server.read(self.database, schema, piece, self.options)

    def _read_once(self, schema: TableSchema, piece: Window, *, from_shard: bool) -> PartWriter | None:
        """The writer of all points, which is not closed; None when there were none."""
        writer: PartWriter | None = None
        try:
            with closing(ahead(self._batches(schema, piece, from_shard=from_shard))) as batches:
                for batch in batches:
                    if writer is None:
                        writer = self.attempt.part_writer(self.number, schema.table, batch.schema, piece)
                    writer.write(batch)
                    self.on_batch(batch.num_rows, batch.nbytes)
        except BaseException:
            _discard(writer)
            raise
        return writer

    def _counts(self, schema: TableSchema, piece: Window) -> dict[str, int]:
        fields = sorted({column.name for column in schema.fields})
        counts = self.server.counts(
            self.database, schema.table.retention_policy, schema.table.measurement, piece, fields
        )
        return {name: count for name, count in counts.items() if count}


def _discard(writer: PartWriter | None) -> None:
    if writer is not None:
        writer.discard()


def _between(before: Mapping[str, int], read: Mapping[str, int], after: Mapping[str, int]) -> bool:
    """Whether points that arrived between two counts explain what was read."""
    return all(before.get(name, 0) <= read.get(name, 0) <= after.get(name, 0) for name in {*before, *read, *after})


def _difference(read: Mapping[str, int], counted: Mapping[str, int]) -> str:
    names = [name for name in sorted({*read, *counted}) if read.get(name, 0) != counted.get(name, 0)]
    shown = ", ".join(
        f"field {printable(name)!r}: {read.get(name, 0)} read, {counted.get(name, 0)} counted" for name in names[:3]
    )
    return f"{shown}{' and others' if len(names) > 3 else ''}."
