"""Restore by line protocol against the same server fed the same line protocol, prepared."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Iterator

import pyarrow as pa

from benchmarks.data import DataSet, walks
from benchmarks.data import send as send_prepared
from benchmarks.shards import ShardBed
from benchmarks.table import Result, ratio
from influxdb_backup.archive.repository import Repository
from influxdb_backup.influx.protocol import WriteOptions
from influxdb_backup.influx.writer import LineProtocolWriter, SendResult
from influxdb_backup.jobs.export import export
from influxdb_backup.jobs.restore import restore
from influxdb_backup.jobs.restore_request import RestoreRequest
from influxdb_backup.shard_groups import DEFAULT_DURATION

CONNECTIONS = 2
_FEWEST_RUNS = 9
"""two turns of the same differ by a tenth, which is what the bound leaves"""


def measure(bed: ShardBed, runs: int) -> list[Result]:
    """
    Rows per second of the writing part of a restore over those of prepared bodies, two connections each, into a
    database that each of them makes.

    The bodies are those of the restore, byte for byte. The two take turns, each of which begins when nothing of the one
    before waits for the disk. There are nine runs or more.
    """
    data = walks()
    bed.running.create_database("restored")
    _feed(bed, "restored", data.bodies())
    repository = bed.repository("restore")
    export(bed.plan("restored", "query"), data.window, server=bed.server, repository=repository)
    _drop(bed, "restored")
    bodies = _bodies(bed, repository, data)
    ratios, speeds = [], []
    for number in range(max(_FEWEST_RUNS, runs)):  # a server is faster every second time: each comes first and second
        fed = _prepared(bed, bodies, f"prepared_{number}_0")
        written = [_restored(bed, repository, data, f"copy_{number}_{place}") for place in range(2)]
        fed += _prepared(bed, bodies, f"prepared_{number}_1")
        ratios.append(fed / sum(written))
        speeds.append(data.rows / min(written))
    what = f"{bed.name}: restore by line protocol, 2 connections / the same bodies, prepared"
    short = f"restore by line protocol / the same lines, prepared, to the same server ({bed.name})"
    return [ratio(f"{what} (best {max(speeds):,.0f} rows/s)", ratios, least=0.90, short=short)]


def _feed(bed: ShardBed, database: str, bodies: list[bytes]) -> float:
    running = bed.running
    return send_prepared(running.url, database, bodies, CONNECTIONS, running.token, running.organization)


def _prepared(bed: ShardBed, bodies: list[bytes], name: str) -> float:
    os.sync()
    began = time.perf_counter()
    bed.running.create_database(name)  # as a restore does
    created = time.perf_counter() - began
    seconds = created + _feed(bed, name, bodies)
    _drop(bed, name)
    return seconds


def _restored(bed: ShardBed, repository: Repository, data: DataSet, name: str) -> float:
    request = RestoreRequest(
        plan="restored", window=data.window, target_database=name, connections=CONNECTIONS, writer="lines"
    )
    os.sync()
    report = restore(request, repository=repository, target=bed.server)
    if report.rows != data.rows:
        raise RuntimeError(f"{report.rows} rows of {data.rows} were restored")
    _drop(bed, name)
    return report.write_seconds


def _bodies(bed: ShardBed, repository: Repository, data: DataSet) -> list[bytes]:
    """What a restore sends."""
    found: list[bytes] = []

    def keep(body: memoryview) -> SendResult:
        found.append(bytes(body))
        return SendResult(204, "")

    options = WriteOptions(connections=1)
    with LineProtocolWriter(keep, bed.server.dialect, options, shard_duration=DEFAULT_DURATION) as writer:
        for batch in _batches(repository):
            writer.write(data.measurement, batch)
    return found


def _batches(repository: Repository) -> Iterator[pa.RecordBatch]:
    (ref,) = repository.refs("restored")
    for table in repository.manifest(ref).tables:
        for part in table.parts:
            yield from repository.read_part(part)


def _drop(bed: ShardBed, database: str) -> None:
    running = bed.running
    if running.generation == 1:
        running.query(f'DROP DATABASE "{database}"')
        return
    (bucket,) = json.loads(running.get(f"/api/v2/buckets?name={database}"))["buckets"]
    headers = {"Authorization": f"Token {running.token}"}
    url = f"{running.url}/api/v2/buckets/{bucket['id']}"
    urllib.request.urlopen(urllib.request.Request(url, method="DELETE", headers=headers)).close()
