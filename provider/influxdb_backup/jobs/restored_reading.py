"""
What a database holds that was restored into, read back.

What was written as whole shards is read back as whole shards, every value. The restore has counted all fields by query
before; a stretch of each table is read by query as well, so that what the engine of the server makes of the files is
part of the proof. Everything else is read by query.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.fingerprint import TableFingerprint, add_fingerprints, fingerprint_batches
from influxdb_backup.influx.protocol import ReadOptions, Server, ShardCopy
from influxdb_backup.jobs.ahead import ahead
from influxdb_backup.jobs.piece import read_whole
from influxdb_backup.jobs.shard_reading import ShardReading
from influxdb_backup.messages import logger_of
from influxdb_backup.model import Table, TableSchema, Window, printable
from influxdb_backup.windows import format_window

logger = logger_of(__name__)

SAMPLE_ROWS = 10_000
"""about so many rows of each table and shard group are asked by query too"""
SAMPLE_SHARE = 1 / 50
"""and no more than this share of them, but a few"""
_FEWEST = 100


@dataclass
class Seen:
    """What one table of the database holds."""

    found: list[TableFingerprint] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)
    """stretches in which queries give other points than the shard's files hold"""


@dataclass(frozen=True)
class RestoredReader:
    """Reads tables of a restored ``database``; ``by_shards`` where it was written by shards."""

    server: Server
    database: str
    window: Window
    by_shards: bool
    randomness: random.Random

    def read(self, retention_policy: str, tables: Iterable[Table]) -> dict[Table, Seen]:
        """What the database holds of each of these tables of one policy; nothing for a table that it does not list."""
        listed = self._listed(retention_policy)
        wanted = {table: listed[table] for table in tables if table in listed}
        seen = {table: Seen() for table in wanted}
        index_fields = {table: self._index_fields(schema) for table, schema in wanted.items()}
        by_shards = self.by_shards or any(index_fields.values())
        shards = ShardReading(
            self.server,
            self.database,
            "auto" if by_shards else "query",
            0,
            because="its points are compared by queries",
        )
        for piece in self.server.pieces(self.database, retention_policy, self.window):
            with shards.opened(retention_policy, piece) as copy:
                for table, schema in wanted.items():
                    if copy is None or not self._by_shard(copy, schema, piece, seen[table]):
                        seen[table].found += self._by_query(schema, piece)
                        seen[table].differences += [
                            f"The field {printable(name)} is not read back, since queries answer it from the index of "
                            f"{self.server.name}: that needs its backup door (snapshot_address, an operator token)."
                            for name in index_fields[table]
                        ]
        return seen

    def _index_fields(self, schema: TableSchema) -> list[str]:
        """Fields that only a copy of a shard tells the values of."""
        return sorted({column.name for column in schema.fields} & self.server.dialect.index_fields)

    def _listed(self, retention_policy: str) -> dict[Table, TableSchema]:
        return {schema.table: schema for schema in self.server.schema(self.database, retention_policy).tables}

    def _by_shard(self, copy: ShardCopy, schema: TableSchema, piece: Window, seen: Seen) -> bool:
        try:
            found = _from_copy(copy, schema, piece)
            sample = sample_of(found, self.randomness)
            expected = _from_copy(copy, schema, sample) if sample else None
        except IncompleteReadError as error:
            logger.info("%s in %s is read back by queries: %s", schema.table, format_window(piece), error)
            return False
        seen.found.append(found)
        if sample and expected:
            asked = self._by_query(schema, sample)
            if not self._index_fields(schema) and content(asked) != content([expected]):
                rows = sum(one.rows for one in asked)
                seen.differences.append(
                    f"In {format_window(sample)} a query gives {rows} rows, with another content than the "
                    f"{expected.rows} rows in the shard's files."
                )
        return True

    def _by_query(self, schema: TableSchema, piece: Window) -> list[TableFingerprint]:
        def read(known: TableSchema, part: Window) -> TableFingerprint:
            batches = self.server.read(self.database, known, part, ReadOptions())
            return fingerprint_batches(known.table.measurement, ahead(batches))

        def refresh() -> TableSchema:
            return self._listed(schema.table.retention_policy).get(schema.table, schema)

        return read_whole(read, schema, refresh, piece)[0]


def sample_of(found: TableFingerprint, randomness: random.Random) -> Window | None:
    """A stretch of time that holds about as many rows as are to be asked by query; None when there is no row."""
    if found.min_time is None or found.max_time is None:
        return None
    length = found.max_time - found.min_time + 1
    rows = min(found.rows, SAMPLE_ROWS, max(_FEWEST, int(found.rows * SAMPLE_SHARE)))
    width = max(1, length * rows // found.rows)
    start = found.min_time + randomness.randrange(length - width + 1)
    return Window(start=start, end=start + width)


def _from_copy(copy: ShardCopy, schema: TableSchema, piece: Window) -> TableFingerprint:
    return fingerprint_batches(schema.table.measurement, ahead(copy.read(schema, piece, ReadOptions())))


def content(parts: Sequence[TableFingerprint]) -> tuple[int, str]:
    """Rows and fingerprint of disjoint parts of a table."""
    return sum(part.rows for part in parts), add_fingerprints(part.hexadecimal for part in parts)


__all__ = ["SAMPLE_ROWS", "RestoredReader", "Seen", "content", "sample_of"]
