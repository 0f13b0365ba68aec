"""Export by query against curl draining the same queries, and the archive against the server's own files."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import urllib3

from benchmarks import shards
from benchmarks.bed import Bed
from benchmarks.data import FIELDS, DataSet, walks
from benchmarks.data import send as send_prepared
from benchmarks.table import Result, ratio, seconds
from influxdb_backup.archive.repository import Repository
from influxdb_backup.config.model import Plan
from influxdb_backup.influx.influxql import call_all, every_source, select_all
from influxdb_backup.influx.protocol import Server
from influxdb_backup.jobs.export import export
from influxdb_backup.model import Window
from tests.servers import RunningServer


def _curl(running: RunningServer, database: str, statements: list[str], output: Path) -> float:
    token = ["-H", f"Authorization: Token {running.token}"] if running.token else []
    started = time.perf_counter()
    for statement in statements:
        subprocess.run(
            [
                "curl", "--silent", "--fail", "--output", str(output), "-X", "POST", *token,
                "-H", "Accept: application/x-msgpack",
                "--data-urlencode", f"q={statement}",
                f"{running.url}/query?db={database}&epoch=ns&chunked=true",
            ],
            check=True,
        )  # fmt: skip
    return time.perf_counter() - started


def measure(bed: Bed, runs: int) -> list[Result]:
    """The ratio of whole exports (schema, read, count, fingerprint, Parquet, commit) to curl, and of sizes."""
    data = walks()
    bed.running.create_database("telemetry")
    send_prepared(bed.running.url, "telemetry", data.bodies())
    stored = bed.tsm_bytes("telemetry")
    found, size = _against_curl("1.6", bed.running, bed.server, bed.plan("telemetry"), bed.repository, data, runs)
    return [
        *found,
        ratio(
            f"archive bytes / compacted TSM bytes ({size / 1e6:.1f} MB / {stored / 1e6:.1f} MB)",
            [size / stored],
            most=0.90,
            digits=3,
            short="archive bytes / the server's compacted files",
        ),
    ]


def measure_newer(folder: Path, runs: int) -> list[Result]:
    """The same against curl on the other servers at hand."""
    data = walks()
    found = []
    folder.mkdir()
    with shards.beds(folder, only=("1.12", "2.9")) as beds:
        for bed in beds:
            bed.fill("telemetry", data)
            plan = bed.plan("telemetry", reader="query")
            found += _against_curl(bed.name, bed.running, bed.server, plan, bed.repository, data, runs)[0]
    return found


def _against_curl(
    name: str,
    running: RunningServer,
    server: Server,
    plan: Plan,
    new_repository: Callable[[str], Repository],
    data: DataSet,
    runs: int,
) -> tuple[list[Result], int]:
    """Also the bytes of the archive."""
    statements = [
        select_all("autogen", data.measurement, data.window),
        call_all("count", "autogen", data.measurement, data.window),
    ]
    assert running.folder is not None
    drained_to = running.folder / "drained"
    export(plan, data.window, server=server, repository=new_repository("warm"))
    _curl(running, plan.database, statements, drained_to)
    ratios, size, ours, drains = [], 0, [], []
    for number in range(runs):
        drained = _curl(running, plan.database, statements, drained_to)
        result = export(plan, data.window, server=server, repository=new_repository(f"export-{number}"))
        if result.rows != data.rows or result.values != data.rows * FIELDS:
            raise RuntimeError(f"{result.rows} rows of {data.rows} were exported")
        ratios.append(result.seconds / drained)
        ours.append(result.seconds)
        drains.append(drained)
        size = result.bytes
    short = f"export by query / `curl` draining the same queries, the count included ({name})"
    return [
        ratio(f"{name}: export by query / curl draining the same queries", ratios, most=1.15, short=short),
        seconds(f"{name}: export by query", ours),
        seconds(f"{name}: curl draining the same queries to a file", drains),
    ], size


def _drain(bed: Bed, database: str, tables: list[str], window: Window) -> float:
    """Seconds that the requests of an export take by themselves, one by one on one connection, their bytes dropped."""
    listing = ["SHOW FIELD KEYS", f"SHOW TAG KEYS FROM {every_source('autogen')}"]
    reading = [
        statement
        for table in tables
        for statement in (select_all("autogen", table, window), call_all("count", "autogen", table, window))
    ]
    pool = urllib3.PoolManager(headers={"Accept": "application/x-msgpack"})
    started = time.perf_counter()
    for statement in [*listing, *reading, *listing]:
        fields = {"db": database, "rp": "autogen", "epoch": "ns", "chunked": "true", "q": statement}
        reply = pool.request(
            "POST", f"{bed.running.url}/query", fields=fields, encode_multipart=False, preload_content=False
        )
        while reply.read(1 << 20):
            pass
        reply.release_conn()
    return time.perf_counter() - started


def measure_small_tables(bed: Bed, runs: int) -> list[Result]:
    """A window of 1,000 small tables against the same points in one table, and against that and what requests take."""
    names, each = [f"table_{number:04d}" for number in range(1_000)], 864
    bed.running.create_database("many")
    bed.running.create_database("one")
    for number, name in enumerate(names):
        data = walks(name, rows=each, series=4, seed=number)
        send_prepared(bed.running.url, "many", data.bodies(), connections=1)
    whole = walks("whole", rows=each * len(names), series=4 * len(names))
    send_prepared(bed.running.url, "one", whole.bodies())
    window = whole.window
    ratios, explained = [], []
    for number in range(runs):
        many = export(bed.plan("many"), window, server=bed.server, repository=bed.repository(f"many-{number}"))
        one = export(bed.plan("one"), window, server=bed.server, repository=bed.repository(f"one-{number}"))
        requests = _drain(bed, "many", names, window)
        if many.rows != one.rows or many.values != one.values:
            raise RuntimeError(f"{many.rows} rows of many tables and {one.rows} of one were exported")
        ratios.append(many.seconds / one.seconds)
        explained.append(many.seconds / (one.seconds + requests))
    return [
        Result(
            f"a window of {len(names):,} small tables / the same points in one table",
            "shown",
            f"{sorted(ratios)[len(ratios) // 2]:.2f}",
            " ".join(f"{value:.2f}" for value in ratios),
            None,
        ),
        ratio(
            f"the same {len(names):,} tables / that one table and {2 * len(names):,} requests, drained",
            explained,
            most=1.0,
            short=f"a window of {len(names):,} small tables / the same points in one table and the requests, drained",
        ),
    ]
