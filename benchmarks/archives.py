"""Backups that are made without a server, from points that are made piece by piece: the quick way to fill servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from benchmarks.data import DAY, FIELDS, ROWS, START, narrow, texts, walks
from influxdb_backup.archive.commit import ManifestDraft
from influxdb_backup.archive.parts import PartWriter, table_entry
from influxdb_backup.archive.repository import Repository
from influxdb_backup.columns import ARROW_TYPES, TIME_TYPE, arrow_schema, batch_columns, null_column
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.restore import restore
from influxdb_backup.jobs.restore_request import RestoreRequest
from influxdb_backup.model import (
    Column,
    Evidence,
    InfluxType,
    Ref,
    RetentionPolicy,
    Role,
    Scope,
    Source,
    Table,
    Window,
)


@dataclass(frozen=True)
class Shape:
    """Points of one measurement; ``pieces`` are its shard groups, one day each, with what makes the points of each."""

    name: str
    measurement: str
    rows: int
    values: int
    series: int
    pieces: tuple[tuple[Window, Callable[[], Iterator[pa.RecordBatch]]], ...]

    @property
    def window(self) -> Window:
        """All pieces."""
        return Window(start=self.pieces[0][0].start, end=self.pieces[-1][0].end)


def _day(number: int) -> Window:
    return Window(start=START + number * DAY, end=START + (number + 1) * DAY)


def daily(days: int) -> Shape:
    """864,000 points of 10 fields on 100 series a day."""
    pieces = tuple(
        (_day(day), lambda day=day: iter(walks(seed=day + 1, start=_day(day).start).batches)) for day in range(days)
    )
    return Shape(f"{days} days", "cpu", days * ROWS, days * ROWS * FIELDS, 100, pieces)


def small(days: int) -> Shape:
    """144 points of 10 fields on 4 series a day."""
    pieces = tuple(
        (_day(day), lambda day=day: iter(walks(rows=144, series=4, seed=day, start=_day(day).start).batches))
        for day in range(days)
    )
    return Shape(f"{days} small days", "cpu", days * 144, days * 1_440, 4, pieces)


def dense(times: int) -> Shape:
    """So many times 864,000 points of 10 fields on 100 series within one day, which is one shard."""
    rows = times * ROWS
    pieces = ((_day(0), lambda: iter(walks(rows=rows).batches)),)
    return Shape(f"{times}x in one shard", "cpu", rows, rows * FIELDS, 100, pieces)


def many(series: int, rows: int, fields: int = 2) -> Shape:
    """About ``rows`` points within one day, on so many series."""
    points = max(1, rows // series)
    pieces = ((_day(0), lambda: iter(narrow(series, points, fields=fields).batches)),)
    return Shape(f"{series:,} series", "many", series * points, series * points * fields, series, pieces)


def long_texts(rows: int, size: int = 65_536) -> Shape:
    """Strings of ``size`` bytes on one series."""
    pieces = ((_day(0), lambda: iter(texts(rows, size).batches)),)
    return Shape("long strings", "log", rows, rows, 1, pieces)


def sparse(fields: int = 2_000, each: int = 10, rows: int = 40_000) -> Shape:
    """One measurement of so many fields of all types, of which each series has ``each`` of its own."""
    series = fields // each
    points = rows // series
    kinds = [InfluxType.FLOAT, InfluxType.STRING, InfluxType.BOOLEAN, InfluxType.INTEGER]
    columns = [Column(role=Role.TAG, name="host", type=InfluxType.TAG)]
    columns += [
        Column(role=Role.FIELD, name=f"field_{number:04d}", type=kinds[number % len(kinds)]) for number in range(fields)
    ]
    schema = arrow_schema(columns)

    def made() -> Iterator[pa.RecordBatch]:
        times = pa.array(START + np.arange(points, dtype=np.int64) * 10**9).cast(TIME_TYPE)
        codes = pa.array(np.zeros(points, dtype=np.int32))
        for own in range(series):
            host = pa.DictionaryArray.from_arrays(codes, pa.array([f"host_{own:05d}"]))
            arrays = [
                pa.array(np.arange(points)).cast(ARROW_TYPES[column.type])
                if number // each == own
                else null_column(ARROW_TYPES[column.type], points)
                for number, column in enumerate(columns[1:])
            ]
            yield pa.RecordBatch.from_arrays([times, host, *arrays], schema=schema)

    return Shape(f"{fields:,} sparse fields", "wide", rows, rows * each, series, ((_day(0), made),))


def states(hours: int, series: int = 2_000) -> Shape:
    """A float (a sensor's, 2 decimals), an integer and a word, every 10 s for so many hours of one day."""
    each = hours * 360
    columns = [Column(role=Role.TAG, name=name, type=InfluxType.TAG) for name in ("host", "region")]
    kinds = {"load": InfluxType.FLOAT, "count": InfluxType.INTEGER, "state": InfluxType.STRING}
    columns += [Column(role=Role.FIELD, name=name, type=kind) for name, kind in kinds.items()]
    schema = arrow_schema(columns)
    words = pa.array(["running", "idle", "stopped", "failed", "degraded"])

    def made() -> Iterator[pa.RecordBatch]:
        random = np.random.default_rng(6)
        times = pa.array(START + np.arange(each, dtype=np.int64) * 10**10).cast(TIME_TYPE)
        codes = pa.array(np.zeros(each, dtype=np.int32))
        for number in range(series):
            names = (f"host_{number:05d}", f"region_{number % 20}")
            tags = [pa.DictionaryArray.from_arrays(codes, pa.array([name])) for name in names]
            load = 21 + 3 * np.sin(np.linspace(0, 6, each) + random.uniform(0, 6)) + random.normal(0, 0.1, each)
            counts, states = random.integers(0, 101, each), words.take(pa.array(random.integers(0, 5, each)))
            arrays = [times, *tags, pa.array(np.round(load, 2)), pa.array(counts), states]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    rows = each * series
    return Shape(f"{rows:,} points with a word", "state", rows, rows * 3, series, ((_day(0), made),))


def noise(values: int, series: int = 100, fields: int = 16) -> Shape:
    """Floats that do not compress: 8 bytes each, also in the server's files."""
    each = values // (series * fields)
    columns = [Column(role=Role.TAG, name="host", type=InfluxType.TAG)]
    columns += [Column(role=Role.FIELD, name=f"float_{number}", type=InfluxType.FLOAT) for number in range(fields)]
    schema = arrow_schema(columns)

    def made() -> Iterator[pa.RecordBatch]:
        random = np.random.default_rng(5)
        times = pa.array(START + np.arange(each, dtype=np.int64) * (DAY // each)).cast(TIME_TYPE)
        codes = pa.array(np.zeros(each, dtype=np.int32))
        for number in range(series):
            host = pa.DictionaryArray.from_arrays(codes, pa.array([f"host_{number:05d}"]))
            arrays = [times, host, *(pa.array(random.random(each)) for _ in range(fields))]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    rows = each * series
    return Shape(f"{rows * fields:,} random floats", "noise", rows, rows * fields, series, ((_day(0), made),))


def stored(repository: Repository, database: str, shape: Shape) -> Ref:
    """A backup of the shape, as an export of a database of that name would commit it."""
    table = Table(retention_policy="autogen", measurement=shape.measurement)
    policy = RetentionPolicy(name="autogen", duration=0, shard_duration=DAY, default=True)
    with repository.begin(database, shape.window) as attempt:
        parts = []
        for piece, made in shape.pieces:
            writer: PartWriter | None = None
            for batch in made():
                writer = writer or attempt.part_writer(0, table, batch.schema, piece)
                writer.write(batch)
                columns = batch_columns(batch.schema)
            assert writer is not None
            parts += writer.close()
        draft = ManifestDraft(
            source=Source(
                product="influxdb", version="1", generation=1, database=database, retention_policies=(policy,)
            ),
            scope=Scope(),
            evidence=Evidence(
                predicate="",
                read_start=shape.window.end,
                read_end=shape.window.end,
                settle=0,
                open=False,
                pieces=(),
                counts=(),
                unreadable=(),
            ),
            tables=(table_entry(0, table, columns, tuple(parts)),),
        )
        return attempt.commit(draft).ref


def fill(server: Server, repository: Repository, database: str, shape: Shape) -> Ref:
    """The shape in a new database of the server, by whole shards, and its backup in the repository."""
    ref = stored(repository, database, shape)
    request = RestoreRequest(refs=(ref.id,), target_database=database, writer="shard")
    report = restore(request, repository=repository, target=server)
    if report.rows != shape.rows:
        raise RuntimeError(f"{report.rows} rows of {shape.rows} were written")
    return ref
