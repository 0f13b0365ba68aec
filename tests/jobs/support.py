"""Plans, repositories and real servers for the tests of the jobs; what a server holds is asked without the product."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pyarrow as pa

from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.columns import batch_columns
from influxdb_backup.config.model import Plan
from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.protocol import LEASE, Server, ServerSettings
from influxdb_backup.jobs.export import ExportOptions, ExportResult, export
from influxdb_backup.jobs.restore import restore
from influxdb_backup.jobs.restore_documents import RestoreReport
from influxdb_backup.jobs.restore_request import RestoreRequest
from influxdb_backup.model import Manifest, Ref, Role, Scope, Table, Window
from influxdb_backup.windows import parse_instant, parse_window
from tests.influx2.support import Preparation
from tests.servers import RunningServer

SECOND = 10**9
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY_NS = 24 * HOUR
DAY = parse_window("2024-03-06T00:00:00Z", "2024-03-07T00:00:00Z")
"""A closed window in the middle of a week, so of a default shard group."""
WEEK = parse_window("2024-03-04T00:00:00Z", "2024-03-11T00:00:00Z")
"""One whole default shard group (Monday to Monday)."""


def at(text: str) -> int:
    """Nanoseconds of an instant."""
    return parse_instant(text)


def window(start: int, end: int) -> Window:
    """Half-open, ns."""
    return Window(start=start, end=end)


def plan(database: str = "telemetry", name: str = "telemetry", **settings: object) -> Plan:
    """A plan as the YAML file would give it."""
    return Plan.model_validate({"name": name, "database": database, "repositories": ["primary"], **settings})


def memory_repository() -> Repository:
    """A new repository in memory."""
    return Repository.init(open_store(f"memory://{uuid4().hex}"))


def local_repository(folder: Path) -> Repository:
    """A new repository in a folder."""
    return Repository.init(open_store(f"file://{folder}/repository"))


def settings_of(running: RunningServer, **more: object) -> ServerSettings:
    """How the product reaches a server of the tests."""
    known = {"url": running.url, "token": running.token, "organization": running.organization}
    return ServerSettings(**{**known, "name": "tests", "timeout": 30, **more})  # type: ignore[arg-type]


@contextmanager
def opened(running: RunningServer, **more: object) -> Iterator[Server]:
    """The product's view of a server."""
    server = connect(settings_of(running, **more))
    try:
        yield server
    finally:
        server.close()


def new_name(prefix: str = "db") -> str:
    """A database name that nobody else uses."""
    return f"{prefix}_{uuid4().hex[:12]}"


def new_database(running: RunningServer, prefix: str = "db") -> str:
    """An empty database of its own."""
    name = new_name(prefix)
    running.create_database(name)
    return name


def create_policy(running: RunningServer, database: str, policy: str, terms: str) -> None:
    """A retention policy of a 1.x server, with InfluxQL's own words."""
    answer = running.query(f'CREATE RETENTION POLICY "{policy}" ON "{database}" {terms}')
    assert "error" not in str(answer), answer


def create_hours(running: RunningServer, database: str) -> None:
    """A policy ``hours`` beside autogen, whose shard groups are an hour long; on 2.x a bucket."""
    if running.generation == 1:
        create_policy(running, database, "hours", "DURATION INF REPLICATION 1 SHARD DURATION 1h DEFAULT")
    else:
        Preparation(running).bucket(f"{database}/hours", shard_seconds=3600)


def back_up(
    repository: Repository, server: Server, chosen: Plan, chosen_window: Window = DAY, **options: object
) -> ExportResult:
    """One export."""
    return export(
        chosen,
        chosen_window,
        server=server,
        repository=repository,
        options=ExportOptions(**options),  # type: ignore[arg-type]
    )


def restore_into(
    repository: Repository, server: Server, database: str | None, *, scope: Scope | None = None, **request: object
) -> RestoreReport:
    """One restore."""
    asked = RestoreRequest.model_validate({"target_database": database, **request})
    return restore(asked, repository=repository, target=server, scope=scope)


def manifest_of(repository: Repository, ref: str) -> Manifest:
    """The manifest of a ref by its text."""
    return repository.manifest(repository.ref(ref))


def fingerprints(manifest: Manifest) -> dict[Table, tuple[int, str]]:
    """Rows and fingerprint of every table that has points."""
    return {entry.table: (entry.rows, entry.fingerprint) for entry in manifest.tables if entry.rows}


Point = tuple[str, str, tuple[tuple[str, object], ...], int, str, object]
"""policy, measurement, tags, time, field, value"""


def points_of(policy: str, measurement: str, batches: Iterable[pa.RecordBatch]) -> Iterator[Point]:
    """Every value of record batches on its own; floats by their text, so that -0.0 is not 0.0 and 1.0 is not 1."""
    for batch in batches:
        columns = batch_columns(batch.schema)
        times = batch.column(0).cast(pa.int64()).to_pylist()
        values = [batch.column(n + 1).to_pylist() for n in range(len(columns))]
        tags = [n for n, column in enumerate(columns) if column.role is Role.TAG]
        for row, time in enumerate(times):
            key = tuple(sorted((columns[n].name, values[n][row]) for n in tags if values[n][row] is not None))
            for n, column in enumerate(columns):
                value = values[n][row]
                if column.role is Role.FIELD and value is not None:
                    yield policy, measurement, key, time, column.name, typed(value)


def archived(repository: Repository, ref: Ref) -> dict[tuple[object, ...], object]:
    """Every value of a backup, by (policy, measurement, tags, time, field)."""
    found: dict[tuple[object, ...], object] = {}
    for entry in repository.manifest(ref).tables:
        for part in entry.parts:
            batches = repository.read_part(part)
            for *key, value in points_of(entry.table.retention_policy, entry.table.measurement, batches):
                assert tuple(key) not in found, f"{key} is there twice"
                found[tuple(key)] = value
    return found


def typed(value: object) -> object:
    """A value that is equal only to one of the same type and bits."""
    if isinstance(value, float):
        return ("float", value.hex() if math.isfinite(value) else repr(value))
    return (type(value).__name__, value)


def rows_of(running: RunningServer, statement: str, database: str) -> list[list[object]]:
    """The rows of a statement's JSON answer, series after series; never through the product's code."""
    answer = running.query(statement, db=database)
    results = answer["results"]
    assert isinstance(results, list)
    assert "error" not in results[0], answer
    return [row for series in results[0].get("series", []) for row in series["values"]]


def lines(points: Iterable[tuple[str, str, int]]) -> str:
    """Line protocol from (measurement and tags, fields, time)."""
    return "\n".join(f"{key} {fields} {time}" for key, fields, time in points)


class Wrapped:
    """
    A Server in front of a real one; a test overrides the verbs that it wants to go wrong.

    Everything that is not overridden goes to the real server.
    """

    def __init__(self, server: Server) -> None:
        self.server = server

    def __getattr__(self, name: str) -> object:
        return getattr(self.server, name)


class Later(Wrapped):
    """The server a few minutes after what happened."""

    def now(self) -> int:
        """Later than a drill that was killed is believed to be at work."""
        return self.server.now() + LEASE + MINUTE


def tags_of(names: Mapping[str, str] | Sequence[tuple[str, str]]) -> str:
    """The tag part of a line, already escaped by the caller."""
    return "".join(f",{key}={value}" for key, value in dict(names).items())
