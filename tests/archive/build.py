"""Small real backups for the tests of the archive."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pyarrow as pa

from influxdb_backup.archive.attempt import Attempt
from influxdb_backup.archive.commit import Committed, ManifestDraft
from influxdb_backup.archive.parts import table_entry
from influxdb_backup.archive.repository import Repository
from influxdb_backup.columns import arrow_schema
from influxdb_backup.model import Column, Evidence, InfluxType, Part, Role, Scope, Source, Table, TableEntry, Window
from influxdb_backup.windows import parse_window

DAY = parse_window("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")
SECOND = 1_000_000_000
TABLE = Table(retention_policy="autogen", measurement="cpu load")

HOST = Column(role=Role.TAG, name="host", type=InfluxType.TAG)
ALL_FIELDS = tuple(
    Column(role=Role.FIELD, name=f"v {kind.value}", type=kind)
    for kind in (InfluxType.FLOAT, InfluxType.INTEGER, InfluxType.UNSIGNED, InfluxType.STRING, InfluxType.BOOLEAN)
)
COLUMNS = (HOST, *ALL_FIELDS)

Row = Sequence[object]


def batch(columns: Sequence[Column], rows: Sequence[Row], binary: frozenset[Column] = frozenset()) -> pa.RecordBatch:
    """A batch with the seam's schema from rows of time, tags and fields; None = absent."""
    schema = arrow_schema(columns, binary)
    arrays = []
    for position, field in enumerate(schema):
        values = [row[position] for row in rows]
        if position == 0:
            arrays.append(pa.array(values, pa.int64()).cast(field.type))
        elif pa.types.is_dictionary(field.type):
            arrays.append(pa.array(values, field.type.value_type).dictionary_encode().cast(field.type))
        else:
            arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def rows(seed: int = 0, count: int = 20, hosts: int = 2, start: int = DAY.start) -> list[Row]:
    """Points of every type, series after series, with holes."""
    made: list[Row] = []
    for host in range(hosts):
        for step in range(count):
            n = seed * 1000 + host * 100 + step
            made.append(
                (
                    start + step * SECOND,
                    f"host {host}" if host else None,
                    n / 7,
                    -n if step % 3 else None,
                    2**64 - 1 - n,
                    f"text {n}\n\"'\\ \u00e9\U0001f600\x00",
                    bool(n % 2),
                )
            )
    return made


def source(**changes: object) -> Source:
    """Where the points of the tests come from."""
    return Source(product="influxdb", version="1.8.10", generation=1, database="telemetry").model_copy(update=changes)


def evidence(read_start: int = 1_800_000_000 * SECOND, open: bool = False) -> Evidence:  # noqa: A002
    """How they were read."""
    return Evidence(
        predicate="time >= 0 AND time < 1",
        read_start=read_start,
        read_end=read_start + SECOND,
        settle=30 * 60 * SECOND,
        open=open,
        pieces=(),
        counts=(),
        unreadable=(),
    )


def write_table(
    attempt: Attempt, batches: Sequence[pa.RecordBatch], number: int = 0, table: Table = TABLE
) -> TableEntry:
    """The entry of one table whose points are in ``batches``."""
    writer = attempt.part_writer(number, table, batches[0].schema, attempt.window)
    for one in batches:
        writer.write(one)
    return table_entry(number, table, (), writer.close())


def wait_for_upload(repository: Repository, parts: Sequence[Part]) -> None:
    """Returns when the parts are in the store: small ones are uploaded beside what follows."""
    deadline = time.monotonic() + 20
    while any(repository.store.size(part.path) is None for part in parts):
        assert time.monotonic() < deadline, "a part was not uploaded"
        time.sleep(0.01)


def draft(*tables: TableEntry, read_start: int = 1_800_000_000 * SECOND, open: bool = False) -> ManifestDraft:  # noqa: A002
    """What an export would hand to the commit."""
    return ManifestDraft(source=source(), scope=Scope(), evidence=evidence(read_start, open), tables=tables)


def backup(
    repository: Repository,
    seed: int = 0,
    *,
    plan: str = "telemetry",
    window: Window = DAY,
    read_start: int = 1_800_000_000 * SECOND,
    open: bool = False,  # noqa: A002
    count: int = 20,
) -> Committed:
    """One committed backup of one table."""
    with repository.begin(plan, window) as attempt:
        entry = write_table(attempt, [batch(COLUMNS, rows(seed, count, start=window.start))])
        return attempt.commit(draft(entry, read_start=read_start, open=open))
