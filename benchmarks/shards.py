"""Whole shards against the server's own raw copies and text exports, and against line protocol."""

from __future__ import annotations

import shutil
import statistics
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import native
from benchmarks.data import FIELDS, DataSet, narrow, walks
from benchmarks.data import send as send_prepared
from benchmarks.table import Result, ratio, seconds
from influxdb_backup.archive.repository import Repository
from influxdb_backup.archive.store import open_store
from influxdb_backup.config.model import Plan
from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.protocol import Server, ServerSettings
from influxdb_backup.jobs.drill import drill
from influxdb_backup.jobs.export import export
from influxdb_backup.jobs.restore import restore
from influxdb_backup.jobs.restore_documents import RestoreReport
from influxdb_backup.jobs.restore_request import RestoreRequest
from influxdb_backup.model import Window
from tests.servers import (
    CACHE,
    RunningServer,
    find_influxd1,
    find_influxd2,
    find_newer_influxd1,
    start_influxdb1,
    start_influxdb2,
)

_MOST = {1: 8, 2: 13}
"""times a raw copy, by generation: 2.x copies in less than half the time, and what is decoded stays the same"""
_MORE = 3
"""times as many runs of what takes a second or less, of which one differs from the next by a half"""


class Remembering:
    """A Server that counts once: what an export takes apart from the server's counting, which goes on beside it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.known: dict[tuple[object, ...], Mapping[str, int]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.server, name)

    def counts(
        self, database: str, policy: str, measurement: str, window: Window, fields: Sequence[str]
    ) -> Mapping[str, int]:
        """The server's counts, as they were the first time."""
        key = database, policy, measurement, window
        if key not in self.known:
            self.known[key] = self.server.counts(database, policy, measurement, window, fields)
        return self.known[key]


@dataclass(frozen=True)
class ShardBed:
    """One server with its backup door open."""

    name: str
    running: RunningServer
    server: Server
    folder: Path
    inspect: Path | None
    """the server's own tool for text exports"""
    created: list[str] = field(default_factory=list)

    def repository(self, name: str) -> Repository:
        """A new empty repository."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return Repository.init(open_store(f"file://{self.folder / name}"))

    def plan(self, database: str, reader: str = "shard", **more: object) -> Plan:
        """A plan of the whole database."""
        settings = {"name": database, "database": database, "repositories": ["bench"], "reader": reader, **more}
        return Plan.model_validate(settings)

    def fill(self, database: str, data: DataSet) -> None:
        """A database with these points, all of them written to files."""
        self.running.create_database(database)
        if self.running.generation == 1:
            send_prepared(self.running.url, database, data.bodies())
        else:
            for body in data.bodies():
                self.running.write(body, database)
        self.running.wait_until_cold()

    def drop(self, database: str) -> None:
        """Drops a database or bucket."""
        if self.running.generation == 1:
            self.running.query(f'DROP DATABASE "{database}"')
            return
        url = f"{self.running.url}/api/v2/buckets/{native.bucket_id(self, database)}"
        headers = {"Authorization": f"Token {self.running.token}"}
        urllib.request.urlopen(urllib.request.Request(url, method="DELETE", headers=headers)).close()


@contextmanager
def beds(folder: Path, only: Sequence[str] = ()) -> Iterator[list[ShardBed]]:
    """Every kind of server at hand, or those named."""
    found: list[ShardBed] = []
    starts: list[tuple[str, str | None, Callable[..., Any]]] = [
        ("1.6", find_influxd1(), start_influxdb1),
        ("1.12", find_newer_influxd1(), start_influxdb1),
        ("2.9", find_influxd2(), start_influxdb2),
    ]
    with ExitStack() as stack:
        for name, binary, start in starts:
            if binary is None or (only and name not in only):
                continue
            running = stack.enter_context(start(folder / name, binary))
            settings = ServerSettings(
                url=running.url, name=name, token=running.token, snapshot_address=running.backup_address, timeout=600
            )
            server = connect(settings)
            stack.callback(server.close)
            tools = sorted(CACHE.glob("influx_inspect-1.*"))
            inspect = (tools[-1] if tools else None) if running.generation == 1 else Path(binary)
            (folder / f"{name}-work").mkdir()
            found.append(ShardBed(name, running, server, folder / f"{name}-work", inspect))
        yield found


def measure(bed: ShardBed, runs: int) -> list[Result]:
    """Every figure of one server."""
    data = walks()
    bed.fill("telemetry", data)
    return [*_exports(bed, data, runs), *_restores(bed, data, runs), *_many_series(bed, max(1, (runs + 1) // 2))]


def _exports(bed: ShardBed, data: DataSet, runs: int) -> list[Result]:
    raw, ratios, speeds, whole = [], [], [], []
    text = [native.export_text(bed, "telemetry", bed.folder / "text.gz") for _ in range(2)] if bed.inspect else []
    remembering = Remembering(bed.server)
    for number in range(_MORE * runs + 1):
        copied = native.copy_shards(bed, "telemetry", bed.folder / "raw")
        apart = _exported(bed, remembering, data, number)
        counted = _exported(bed, bed.server, data, number)
        if number:  # the first run touches fresh memory
            raw.append(copied)
            ratios.append(apart / copied)
            whole.append(counted)
            speeds.append(min(text) / counted if text else 0.0)
    way = native.COPY[bed.running.generation]
    what = f"{bed.name}: export by shards, counts apart / {way}"
    short = "export by shards, counts apart / the server's raw copy of the shard"
    found = [
        ratio(what, ratios, most=_MOST[bed.running.generation], short=f"{short} ({bed.name})"),
        seconds(f"{bed.name}: {way}", raw),
        seconds(f"{bed.name}: export by shards, counts included", whole),
        ratio(
            f"{bed.name}: export by shards, counts included, million values per second",
            [data.rows * FIELDS / spent / 1e6 for spent in whole],
            digits=1,
            short=f"export by shards, counts included, million values per second ({bed.name})",
        ),
    ]
    if text:
        tool = native.TEXT[bed.running.generation]
        found += [
            ratio(
                f"{bed.name}: {tool} / export by shards, counts included",
                speeds,
                least=8,
                short=f"the server's compressed text export / export by shards, counts included ({bed.name})",
            ),
            seconds(f"{bed.name}: {tool}", text),
        ]
    return found


def _exported(bed: ShardBed, server: Any, data: DataSet, number: int) -> float:
    """Seconds of one export into a new repository."""
    repository = bed.repository(f"export-{number % 2}")
    result = export(bed.plan("telemetry"), data.window, server=server, repository=repository)
    if result.rows != data.rows:
        raise RuntimeError(f"{result.rows} rows of {data.rows} were exported")
    return result.seconds


def _restored(bed: ShardBed, repository: Repository, database: str, window: Window, writer: str, name: str) -> float:
    """Seconds from the archive to queryable and counted."""
    request = RestoreRequest(plan=database, window=window, target_database=name, writer=writer)  # type: ignore[arg-type]
    report: RestoreReport = restore(request, repository=repository, target=bed.server)
    if report.writer != writer:
        raise RuntimeError(f"restored by {report.writer}")
    bed.drop(name)
    return report.seconds


def _restores(bed: ShardBed, data: DataSet, runs: int) -> list[Result]:
    repository = bed.repository("restore")
    export(bed.plan("telemetry"), data.window, server=bed.server, repository=repository)
    arguments = (bed, repository, "telemetry", data.window)
    _restored(*arguments, "shard", "warming")
    shards, lines, ratios = [], [], []
    for run in range(runs):
        lines.append(_restored(*arguments, "lines", f"lines_{run}"))
        some = [_restored(*arguments, "shard", f"shards_{run}_{number}") for number in range(_MORE)]
        ratios.append(lines[-1] / statistics.median(some))
        shards += some
    what = f"{bed.name}: restore by line protocol / by shards, 100 series"
    drills = []
    for _ in range(_MORE * runs):
        report = drill(bed.plan("telemetry"), repository=repository, server=bed.server)
        if not report.ok or report.writer != "shard":
            raise RuntimeError(f"the drill did not hold: {report.problems}")
        drills.append(report.seconds_total)
    return [
        ratio(what, ratios, least=10, short=f"restore by line protocol / by shards, 100 series ({bed.name})"),
        ratio(
            f"{bed.name}: whole drill of {data.rows * 10:,} values, seconds",
            drills,
            most=3,
            short=f"whole drill of {data.rows * 10:,} values, seconds ({bed.name})",
        ),
        seconds(f"{bed.name}: restore by shards, 100 series", shards),
        seconds(f"{bed.name}: restore by line protocol, 100 series", lines),
    ]


def _many_series(bed: ShardBed, runs: int) -> list[Result]:
    """100,000 series of about as many values as everywhere else; beside them, without a bound, of few values each."""
    short = f"restore by line protocol / by shards, 100,000 series ({bed.name})"
    return [
        *_many_restored(bed, "many_series", runs, points=9, fields=10, least=3, short=short),
        *_many_restored(bed, "sparse_series", runs, points=10, fields=2),
    ]


def _many_restored(
    bed: ShardBed, database: str, runs: int, *, points: int, fields: int, least: float | None = None, short: str = ""
) -> list[Result]:
    data = narrow(100_000, points, fields=fields)
    bed.fill(database, data)
    repository = bed.repository(database)
    export(bed.plan(database), data.window, server=bed.server, repository=repository)
    arguments = (bed, repository, database, data.window)
    shards = [_restored(*arguments, "shard", f"many_shards_{number}") for number in range(runs)]
    lines = [_restored(*arguments, "lines", f"many_lines_{number}") for number in range(runs)]
    ratios = [line / shard for line, shard in zip(lines, shards, strict=True)]
    what = f"100,000 series of {points} points x {fields} fields"
    return [
        ratio(f"{bed.name}: restore by line protocol / by shards, {what}", ratios, least=least, short=short),
        seconds(f"{bed.name}: restore by shards, {what}", shards),
        seconds(f"{bed.name}: restore by line protocol, {what}", lines),
    ]


__all__ = ["ShardBed", "beds", "measure"]
