"""Reading the pieces of a window from the server and from copies of its shards, as many at once as the plan allows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from types import TracebackType

from influxdb_backup.archive.attempt import Attempt
from influxdb_backup.config.model import Plan
from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.protocol import Server, ShardCopy
from influxdb_backup.jobs.piece import PieceReader, PieceResult
from influxdb_backup.jobs.progress import Progress, ProgressCallback
from influxdb_backup.jobs.scope import table_in_scope
from influxdb_backup.jobs.shard_reading import ShardReading
from influxdb_backup.model import Table, TableSchema, Window

Key = tuple[Table, Window]
"""one table in one piece of the window"""


class WindowReader:
    """
    What one export has read so far, in ``results``.

    The last points of a piece are encoded and uploaded while the server lists, or a copy of the next shard is made.
    Leaving the context ends all threads: what was not finished by then has no result.
    """

    def __init__(
        self, plan: Plan, server: Server, attempt: Attempt, shards: ShardReading, progress: ProgressCallback
    ) -> None:
        self.plan = plan
        self.server = server
        self.window = attempt.window
        self.results: dict[Key, PieceResult] = {}
        self.unreadable: frozenset[Table] = frozenset()
        """tables that the server lists and of which queries read nothing, or not all; set by each listing"""
        self.unlisted: dict[Table, Window] = {}
        """tables of the plan's scope that a copy has points of and the server did not list then, with such a piece"""
        self._attempt = attempt
        self._shards = shards
        self._progress = progress
        self._numbers: dict[Table, int] = {}
        self._rows = self._bytes = self._done = self._total = 0
        self._pool = ThreadPoolExecutor(max_workers=max(1, plan.concurrency), thread_name_prefix="export")
        self._unfinished: list[Future[None]] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        """set when one piece failed or somebody interrupts: the others end at their next batch"""

    def __enter__(self) -> WindowReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    @property
    def by_query(self) -> Mapping[tuple[str, Window], str]:
        """By policy and piece why its shard was not copied, where shards are copied."""
        return self._shards.by_query

    def number(self, table: Table) -> int:
        """The table's number in the manifest: the order in which tables were first seen."""
        return self._numbers.setdefault(table, len(self._numbers))

    def read(self, missing: Mapping[Key, TableSchema]) -> None:
        """
        Reads pieces that have no result yet. The server is not needed any more when it returns, see ``finish``.

        Raises the first error of a piece, after the others have ended.
        """
        self._total += len(missing)
        groups: dict[tuple[str, Window], dict[Key, TableSchema]] = {}
        for key, schema in missing.items():
            groups.setdefault((key[0].retention_policy, key[1]), {})[key] = schema
        needed = {group: self._has_index_fields(keys.values()) for group, keys in groups.items()}
        if all(not needed[group] and self._shards.is_small(*group) for group in groups) or self._shards.reason:
            self._read_together(missing, None)
            return
        for (retention_policy, piece), keys in groups.items():
            however_small = needed[retention_policy, piece]
            with self._shards.opened(retention_policy, piece, however_small=however_small) as copy:
                self.finish()
                if copy is not None:
                    self._look_for_unlisted(copy, retention_policy, piece)
                self._read_together(keys, copy)

    def _has_index_fields(self, schemas: Iterable[TableSchema]) -> bool:
        """Whether one of them has a field that only a copy of its shard has the values of."""
        index_fields = self.server.dialect.index_fields
        return any(column.name in index_fields for schema in schemas for column in schema.fields)

    def _look_for_unlisted(self, copy: ShardCopy, retention_policy: str, piece: Window) -> None:
        for measurement in sorted(copy.measurements()):
            table = Table(retention_policy=retention_policy, measurement=measurement)
            is_known = table in self._numbers or table in self.unreadable
            if not is_known and table_in_scope(self.plan.scope, table) and copy.holds(measurement, piece):
                self.unlisted.setdefault(table, piece)

    def finish(self) -> None:
        """Waits until every piece that was read has its result. Raises the first error."""
        self._wait(self._unfinished)
        self._unfinished.clear()

    def still_holds(self, key: Key, schema: TableSchema) -> bool:
        """Whether a piece needs no second read: its table has no new tag or field, or not in this piece."""
        result = self.results[key]
        if result.columns.issuperset(schema.columns):
            return True
        if not self._piece_reader(key, schema).is_still_true(result):
            return False
        self.results[key] = replace(result, columns=frozenset(schema.columns))
        return True

    def withdraw(self, key: Key) -> None:
        """Forgets a result, and removes its parts."""
        self._attempt.withdraw(self.results.pop(key).parts)

    def _read_together(self, missing: Mapping[Key, TableSchema], copy: ShardCopy | None) -> None:
        reads: list[Future[None]] = []
        for key, schema in missing.items():
            reads.append(Future())
            self._unfinished.append(self._pool.submit(self._read_piece, key, schema, copy, reads[-1]))
        self._wait(reads)

    def _wait(self, futures: Sequence[Future[None]]) -> None:
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
        except BaseException:
            self._stop()  # before a copy that the others still read is removed
            raise

    def _read_piece(self, key: Key, schema: TableSchema, copy: ShardCopy | None, read: Future[None]) -> None:
        """Reads one piece; ``read`` is told when the source is no longer needed, or what went wrong before."""
        try:
            result = self._piece_reader(key, schema, copy, lambda: read.set_result(None)).read(key[1])
        except BaseException as error:
            if not read.done():
                read.set_exception(error)
            raise
        with self._lock:
            self.results[key] = result
            self._done += 1
        self._tell(key[0])

    def _piece_reader(
        self,
        key: Key,
        schema: TableSchema,
        copy: ShardCopy | None = None,
        on_read: Callable[[], None] = lambda: None,
    ) -> PieceReader:
        table = key[0]

        def on_batch(rows: int, size: int) -> None:
            if self._stopped.is_set():
                raise IncompleteReadError(f"The reading of {table} was stopped, since another one failed.")
            with self._lock:
                self._rows += rows
                self._bytes += size
            self._tell(table)

        return PieceReader(
            server=self.server,
            database=self.plan.database,
            attempt=self._attempt,
            number=self.number(table),
            schema=schema,
            refresh=lambda: self._refreshed(table),
            on_batch=on_batch,
            on_read=on_read,
            copy=copy,
            has_hidden_series=table in self.unreadable,
        )

    def _refreshed(self, table: Table) -> TableSchema:
        listed = self.server.schema(self.plan.database, table.retention_policy)
        found = [candidate for candidate in listed.tables if candidate.table == table]
        if not found:
            raise IncompleteReadError(f"The measurement {table} vanished from {self.server.name} while it was read.")
        return found[0]

    def _tell(self, table: Table) -> None:
        with self._lock:
            event = Progress("read", self._done, self._total, self._rows, self._bytes, str(table))
        self._progress(event)
