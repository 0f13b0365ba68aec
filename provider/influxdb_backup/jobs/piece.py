"""Reading one table in one piece of the window, and the proof that everything came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import TypeVar

import pyarrow as pa

from influxdb_backup.archive.attempt import Attempt
from influxdb_backup.archive.parts import PartWriter
from influxdb_backup.columns import batch_columns, row_bytes
from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.protocol import ReadOptions, Sample, Server, ShardCopy
from influxdb_backup.jobs.ahead import ahead
from influxdb_backup.messages import logger_of
from influxdb_backup.model import Column, Part, Role, SourceCount, Table, TableSchema, Window, printable
from influxdb_backup.windows import format_window, halve

logger = logger_of(__name__)

_ATTEMPTS = 4
"""reads of one piece before it fails"""
_SLOW_HALVINGS = 2
"""how often a piece is halved whose reply brings next to nothing: each time costs twice the timeout"""
_WORTH_A_THREAD = 4096
"""rows of a piece whose last ones are encoded while the server counts: from so many on encodings are tried out"""

T = TypeVar("T")
Refresh = Callable[[], TableSchema]
"""reads the table's schema again"""


def read_whole(
    read: Callable[[TableSchema, Window], T],
    schema: TableSchema,
    refresh: Refresh,
    piece: Window,
    slow_halvings: int = _SLOW_HALVINGS,
) -> tuple[list[T], TableSchema]:
    """
    What ``read`` returns for the piece, or for each of the halves that it takes; and the schema that it took.

    A read that finds a column which the schema does not have (or which holds bytes that are not UTF-8) is made again
    with a new schema, one that a limit or a cut stream ended is halved in time, and one that brought next to nothing
    ``slow_halvings`` times. Raises IncompleteReadError when that does not help.
    """
    surprises = 0
    while True:
        try:
            return [read(schema, piece)], schema
        except IncompleteReadError as error:
            if error.kind == "schema-changed" and surprises < len(schema.columns) + _ATTEMPTS:
                schema, surprises = refresh(), surprises + 1
                continue
            is_slow = error.kind == "slow-reply"
            halves = halve(piece) if error.kind == "read-limit" or (is_slow and slow_halvings) else None
            if halves is None:
                raise
            slow_halvings -= is_slow
            logger.info("%s in %s is read in two halves: %s", schema.table, format_window(piece), error.message)
        results = []
        for half in halves:
            found, schema = read_whole(read, schema, refresh, half, slow_halvings)
            results += found
        return results, schema


@dataclass(frozen=True)
class PieceResult:
    """The parts of one table in one piece, with what the server said it holds."""

    parts: tuple[Part, ...]
    counts: tuple[SourceCount, ...]
    expected: tuple[tuple[Window, Mapping[str, int]], ...]
    """how many values of each field the server would count in the whole of each read"""
    columns: frozenset[Column]
    """tags and fields that the server listed when it was read"""
    left_out: frozenset[str] = frozenset()
    """fields that no query reads, where it was read by queries"""
    is_shared: bool = False
    """whether several shards hold the piece, of whose values a query may count a part"""


@dataclass
class _Read:
    """One read whose counts are the server's; its last points may wait to be encoded and uploaded."""

    count: SourceCount
    window: Window
    expected: Mapping[str, int]
    """how many values of each field the server would count in the whole of it"""
    writer: PartWriter | None
    """None when it gave no points"""

    def parts(self) -> tuple[Part, ...]:
        """Its parts, finished by the first call."""
        return self.writer.close() if self.writer else ()


@dataclass(frozen=True)
class _Compared:
    """What one read gave, and what the server counted of it."""

    writer: PartWriter | None
    window: Window
    """in which it counted: the piece, or a stretch of it"""
    read: Mapping[str, int]
    """values of each field in that window"""
    counted: Mapping[str, int]


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
    copy: ShardCopy | None = None
    """a copy of the piece's shard, which is read once; None where there is none"""
    has_hidden_series: bool = False
    """whether the server is known to hide some series of the table from queries, which the backup names"""
    options: ReadOptions = field(default_factory=ReadOptions)

    def read(self, piece: Window) -> PieceResult:
        """
        The piece's parts, committed to nothing yet.

        A copy of the shard that has fewer values than the server counts is left for queries. Counts that differ there
        are read again. Raises IncompleteReadError when they keep differing, and, of kind ``hidden-values``, when the
        server counts fewer values than the copy has: that is never taken for all there is.
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
        by_query = any(read.count.reader == "query" for read in reads)
        left_out = self._index_fields(schema) if by_query else frozenset[str]()
        is_shared = not by_query and self.copy is not None and self.copy.stored(schema, piece) is not None
        return PieceResult(
            parts,
            tuple(read.count for read in reads),
            tuple((read.window, read.expected) for read in reads),
            frozenset(schema.columns),
            left_out,
            is_shared=is_shared,
        )

    def _index_fields(self, schema: TableSchema) -> frozenset[str]:
        return frozenset(column.name for column in schema.fields) & self.server.dialect.index_fields

    def _read_proved(self, schema: TableSchema, piece: Window) -> _Read:
        before = None
        difference = ""
        for attempt in range(_ATTEMPTS):
            from_shard = self.copy is not None and attempt == 0
            compared = (self._read_and_count if from_shard else self._read_then_count)(schema, piece)
            read, counted = compared.read, compared.counted
            moved = before is not None and _between(before, read, counted)
            stored = self._stored(schema, piece) if from_shard else None
            if (read == counted or moved) if stored is None else _explains(stored, counted, schema):
                source = SourceCount(
                    table=schema.table,
                    window=compared.window,
                    counts=tuple((name, counted[name]) for name in sorted(counted)),
                    moved=read != counted and stored is None,
                    reader="shard" if from_shard else "query",
                )
                is_part = compared.window != piece
                whole = self._countable(compared.writer.totals) if is_part and compared.writer else counted
                return _Read(source, piece, whole, compared.writer)
            _discard(compared.writer)
            difference = _difference(stored or read, counted)
            if from_shard:
                self._refuse_hidden(schema.table, compared.window, stored or read, counted)
                logger.warning(
                    "%s in %s is read by queries, since its shard's copy differs from the server's counts: %s",
                    schema.table,
                    format_window(piece),
                    difference,
                )
            before = counted if compared.window == piece else None
        raise IncompleteReadError(
            f"The table {schema.table} in {format_window(piece)} cannot be read whole from {self.server.name}: "
            f"{difference}",
            hint="If the window is still being written, wait for it to settle; otherwise look at the server's log.",
        )

    def _countable(self, totals: Mapping[str, int]) -> dict[str, int]:
        """The values that the server's counts tell of."""
        return {name: count for name, count in totals.items() if name not in self.server.dialect.index_fields}

    def _stored(self, schema: TableSchema, piece: Window) -> dict[str, int] | None:
        stored = self.copy.stored(schema, piece) if self.copy else None
        return None if stored is None else self._countable(stored)

    def _refuse_hidden(self, table: Table, piece: Window, held: Mapping[str, int], counted: Mapping[str, int]) -> None:
        hidden = {name: count for name, count in held.items() if counted.get(name, 0) < count}
        if hidden and not self.has_hidden_series:
            counts = {name: counted.get(name, 0) for name in hidden}
            raise IncompleteReadError(
                f"The files of {table} on {self.server.name} hold more values in {format_window(piece)} than the "
                f"server counts: {_difference(hidden, counts, 'in the files')}",
                kind="hidden-values",
                hint="If they were deleted just now, run it again. If not, queries do not find them, though they are "
                "there: look at the server's log. With reader: query the plan backs up what queries find.",
            )

    def _read_then_count(self, schema: TableSchema, piece: Window) -> _Compared:
        writer = self._read_once(schema, piece, self.server.read(self.database, schema, piece, self.options))
        try:
            if writer is None or writer.rows < _WORTH_A_THREAD:
                counted = self._counts(schema, piece)
            else:
                with ThreadPoolExecutor(1, thread_name_prefix="count") as pool:
                    counting = pool.submit(self._counts, schema, piece)
                    writer.close()  # beside it, since the server counts for a while
                    counted = counting.result()
        except BaseException:
            _discard(writer)
            raise
        return _Compared(writer, piece, self._countable(writer.totals if writer else {}), counted)

    def _read_and_count(self, schema: TableSchema, piece: Window) -> _Compared:
        """Both at once: the server counts what it holds after the copy was made, while the copy is decoded here."""
        if self.copy is None:
            raise AssertionError("there is no copy to read")
        sample = self.copy.sample(schema.table.measurement, piece)
        if sample and sample.field not in self._countable({column.name: 0 for column in schema.fields}):
            sample = None
        points = self.copy.read(schema, piece, self.options)
        found: Counter[str] = Counter()
        with ThreadPoolExecutor(1, thread_name_prefix="count") as pool:
            if sample:
                counting = pool.submit(self._count_sample, schema.table, sample)
                points = _counting(points, sample, found)
            else:
                counting = pool.submit(self._counts, schema, piece)
            writer = self._read_once(schema, piece, points)
            try:
                counted = counting.result()
            except BaseException:
                _discard(writer)
                raise
        if sample:
            return _Compared(writer, sample.window, found, counted)
        return _Compared(writer, piece, self._countable(writer.totals if writer else {}), counted)

    def _count_sample(self, table: Table, sample: Sample) -> dict[str, int]:
        count = self.server.count(self.database, table, sample.window, sample.field)
        return {sample.field: count} if count else {}

    def is_still_true(self, result: PieceResult) -> bool:
        """
        Whether the server counts what it counted when the piece was read, after a new tag or field appeared.

        Where counts do not tell of all values, it is not: several shards hold the piece, a field has one more type, or
        the new field is one that queries answer from the index.
        """
        new = frozenset(self.schema.columns) - result.columns
        before = {column.name for column in result.columns if column.role is Role.FIELD}
        if result.is_shared or any(
            column.role is Role.FIELD and (column.name in before or column.name in self.server.dialect.index_fields)
            for column in new
        ):
            return False
        return all(self._counts(self.schema, window) == dict(counts) for window, counts in result.expected)

    def _read_once(self, schema: TableSchema, piece: Window, points: Iterator[pa.RecordBatch]) -> PartWriter | None:
        """The writer of all points, which is not closed; None when there were none."""
        writer: PartWriter | None = None
        try:
            with closing(ahead(points)) as batches:
                for batch in batches:
                    if writer is None:
                        writer = self.attempt.part_writer(self.number, schema.table, batch.schema, piece)
                    writer.write(batch)
                    self.on_batch(batch.num_rows, row_bytes(batch))
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


def _counting(points: Iterator[pa.RecordBatch], sample: Sample, found: Counter[str]) -> Iterator[pa.RecordBatch]:
    """The same points; adds to ``found`` how many values they have of the sample."""
    for batch in points:
        times = batch.column(0).view(pa.int64()).to_numpy()
        inside = (times >= sample.window.start) & (times < sample.window.end)
        if inside.any():
            for position, column in enumerate(batch_columns(batch.schema), start=1):
                if column.role is Role.FIELD and column.name == sample.field:
                    values = batch.column(position).filter(pa.array(inside))
                    found[column.name] += len(values) - values.null_count
        yield batch


def _discard(writer: PartWriter | None) -> None:
    if writer is not None:
        writer.discard()


def _between(before: Mapping[str, int], read: Mapping[str, int], after: Mapping[str, int]) -> bool:
    """Whether points that arrived between two counts explain what was read."""
    return all(before.get(name, 0) <= read.get(name, 0) <= after.get(name, 0) for name in {*before, *read, *after})


def _explains(stored: Mapping[str, int], counted: Mapping[str, int], schema: TableSchema) -> bool:
    """
    Whether a server that holds these values in several shards counts so many.

    Of a field with one type it counts all of them. Of one that has several it may count those of one type alone; that
    the values themselves have one type was proved when they were read.
    """
    types = Counter(column.name for column in schema.fields)
    return all(
        counted.get(name, 0) == stored.get(name, 0)
        if types[name] == 1
        else counted.get(name, 0) in (0, stored.get(name, 0))
        for name in {*stored, *counted}
    )


def _difference(read: Mapping[str, int], counted: Mapping[str, int], how: str = "read") -> str:
    names = [name for name in sorted({*read, *counted}) if read.get(name, 0) != counted.get(name, 0)]
    shown = ", ".join(
        f"field {printable(name)!r}: {read.get(name, 0)} {how}, {counted.get(name, 0)} counted" for name in names[:3]
    )
    return f"{shown}{' and others' if len(names) > 3 else ''}."
