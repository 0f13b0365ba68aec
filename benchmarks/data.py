"""The points that are measured: 100 series of 5 floats (random walks) and 5 small integers."""

from __future__ import annotations

import http.client
import threading
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from influxdb_backup.columns import TIME_TYPE, arrow_schema
from influxdb_backup.influx.dialect import DIALECT_1X
from influxdb_backup.influx.line_protocol import encode
from influxdb_backup.influx.protocol import WriteOptions
from influxdb_backup.model import Column, InfluxType, Role, Window

DAY = 86_400 * 10**9
START = 1_767_225_600 * 10**9
"""2026-01-01T00:00:00Z"""
SERIES = 100
FIELDS = 10
ROWS = 864_000


@dataclass(frozen=True)
class DataSet:
    """Points of one measurement, series after series, all within the window."""

    measurement: str
    batches: tuple[pa.RecordBatch, ...]
    window: Window

    @property
    def rows(self) -> int:
        """Points."""
        return sum(batch.num_rows for batch in self.batches)

    def bodies(self, lines: int = 20_000) -> list[bytes]:
        """Line protocol, ready to be sent."""
        whole = pa.Table.from_batches(self.batches).unify_dictionaries().combine_chunks()
        options = WriteOptions(batch_lines=lines, batch_bytes=2**30)
        return [
            bytes(encoded.body)
            for batch in whole.to_batches(max_chunksize=lines)
            for encoded in encode(self.measurement, batch, DIALECT_1X, options)
        ]


def walks(
    measurement: str = "cpu",
    rows: int = ROWS,
    series: int = SERIES,
    days: int = 1,
    seed: int = 1,
    start: int = START,
) -> DataSet:
    """``rows`` points over ``days`` days from ``start`` on, the same for the same seed."""
    random = np.random.default_rng(seed)
    columns = [
        Column(role=Role.TAG, name="host", type=InfluxType.TAG),
        Column(role=Role.TAG, name="region", type=InfluxType.TAG),
        *(Column(role=Role.FIELD, name=f"float_{n}", type=InfluxType.FLOAT) for n in range(5)),
        *(Column(role=Role.FIELD, name=f"integer_{n}", type=InfluxType.INTEGER) for n in range(5)),
    ]
    schema = arrow_schema(columns)
    each = max(1, rows // series)
    times = pa.array(start + np.arange(each, dtype=np.int64) * (days * DAY // each)).cast(TIME_TYPE)
    codes = pa.array(np.zeros(each, dtype=np.int32))
    batches = []
    for number in range(series):
        tags = [
            pa.DictionaryArray.from_arrays(codes, pa.array([value]))
            for value in (f"host_{number:05d}", f"region_{number % 5}")
        ]
        floats = [pa.array(np.round(50 + np.cumsum(random.normal(0, 0.2, each)), 4)) for _ in range(5)]
        integers = [pa.array(random.integers(0, 101, each)) for _ in range(5)]
        batches.append(pa.RecordBatch.from_arrays([times, *tags, *floats, *integers], schema=schema))
    return DataSet(measurement, tuple(batches), Window(start=start, end=start + days * DAY))


def narrow(series: int, points: int, measurement: str = "many", fields: int = 2) -> DataSet:
    """Many series of a few points, one field each of floats and integers in turn."""
    random = np.random.default_rng(3)
    columns = [Column(role=Role.TAG, name=name, type=InfluxType.TAG) for name in ("host", "region")]
    kinds = [(InfluxType.FLOAT, InfluxType.INTEGER)[number % 2] for number in range(fields)]
    columns += [Column(role=Role.FIELD, name=f"{kind.value}_{n}", type=kind) for n, kind in enumerate(kinds)]
    schema = arrow_schema(columns)
    batches = []
    for first in range(0, series, 10_000):
        count = min(10_000, series - first)
        times = np.tile(START + np.arange(points, dtype=np.int64) * min(600 * 10**9, DAY // points), count)
        hosts = pa.array([f"host_{number:07d}" for number in range(first, first + count)])
        codes = np.repeat(np.arange(count, dtype=np.int32), points)
        regions = pa.array([f"region_{number}" for number in range(5)])
        tags = [
            pa.DictionaryArray.from_arrays(pa.array(codes), hosts),
            pa.DictionaryArray.from_arrays(pa.array(codes % 5), regions),
        ]
        total = count * points
        values = [
            pa.array(np.round(random.normal(50, 9, total), 3))
            if kind is InfluxType.FLOAT
            else pa.array(random.integers(0, 1000, total))
            for kind in kinds
        ]
        arrays = [pa.array(times).cast(TIME_TYPE), *tags, *values]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return DataSet(measurement, tuple(batches), Window(start=START, end=START + DAY))


def texts(rows: int, size: int, measurement: str = "log") -> DataSet:
    """Points with one string field of ``size`` bytes each, hard to compress."""
    random = np.random.default_rng(2)
    schema = arrow_schema([Column(role=Role.FIELD, name="message", type=InfluxType.STRING)])
    letters = np.frombuffer(b"abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789", dtype=np.uint8)
    batches = []
    for start in range(0, rows, 100):
        count = min(100, rows - start)
        values = [letters[random.integers(0, len(letters), size)].tobytes().decode() for _ in range(count)]
        times = pa.array(START + (start + np.arange(count, dtype=np.int64)) * 10**9).cast(TIME_TYPE)
        batches.append(pa.RecordBatch.from_arrays([times, pa.array(values)], schema=schema))
    return DataSet(measurement, tuple(batches), Window(start=START, end=START + DAY))


def send(
    url: str,
    database: str,
    bodies: Sequence[bytes],
    connections: int = 2,
    token: str | None = None,
    organization: str | None = None,
) -> float:
    """Seconds that a server (2.x: where an organisation is named) takes to accept prepared line protocol."""
    parsed = urllib.parse.urlparse(url)
    names = {"org": organization, "bucket": database} if organization else {"db": database}
    path = "/api/v2/write?" if organization else "/write?"
    target = path + urllib.parse.urlencode({**names, "precision": "ns"})
    headers = {"Authorization": f"Token {token}"} if token else {}
    queue = list(reversed(bodies))
    lock = threading.Lock()
    failures: list[str] = []

    def work() -> None:
        connection = http.client.HTTPConnection(parsed.hostname or "", parsed.port, timeout=300)
        while True:
            with lock:
                if not queue or failures:
                    return
                body = queue.pop()
            connection.request("POST", target, body, headers)
            reply = connection.getresponse()
            answer = reply.read()
            if reply.status != 204:
                failures.append(f"{reply.status} {answer[:300]!r}")

    started = time.perf_counter()
    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise RuntimeError(failures[0])
    return time.perf_counter() - started
