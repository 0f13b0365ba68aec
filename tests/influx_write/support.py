"""Batches, raw reading and loopback servers for the tests of the write side; none of the product's reading code."""

from __future__ import annotations

import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgpack
import pyarrow as pa
import urllib3

from influxdb_backup.columns import arrow_schema
from influxdb_backup.errors import ServerUnavailableError
from influxdb_backup.influx.writer import Send, SendResult
from influxdb_backup.model import Column, InfluxType, Role
from tests.listening import QuietHandler, listening
from tests.servers import RunningServer

Rows = Sequence[tuple[int, Mapping[str, object], Mapping[str, object]]]
"""(time, tags, fields) of each point"""


def tag(name: str) -> Column:
    """A tag column."""
    return Column(role=Role.TAG, name=name, type=InfluxType.TAG)


def field(name: str, kind: InfluxType = InfluxType.FLOAT) -> Column:
    """A field column."""
    return Column(role=Role.FIELD, name=name, type=kind)


def batch_of(columns: Sequence[Column], rows: Rows) -> pa.RecordBatch:
    """The points as the record batch that the product passes around; bytes values make a binary column."""
    columns = list(columns)
    values = [
        [(tags if column.role is Role.TAG else fields).get(column.name) for _, tags, fields in rows]
        for column in columns
    ]
    binary = frozenset(
        column for column, items in zip(columns, values, strict=True) if any(isinstance(v, bytes) for v in items)
    )
    schema = arrow_schema(columns, binary)
    arrays = [pa.array([time for time, _, _ in rows], pa.int64()).cast(schema.field(0).type)]
    for column, items, kind in zip(columns, values, list(schema)[1:], strict=True):
        if column.role is Role.TAG:
            arrays.append(pa.array(items, kind.type.value_type).dictionary_encode())
        else:
            arrays.append(pa.array(items, kind.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def read_points(
    server: RunningServer, database: str, source: str = "/.*/", policy: str = "autogen"
) -> dict[tuple[bytes, frozenset[tuple[bytes, bytes]], int], dict[bytes, object]]:
    """(measurement, tags, time) -> fields of all points, raw bytes; numbers keep their kind."""
    statement = f'SELECT * FROM "{policy}".{source} GROUP BY *'
    points = {}
    for series in _series(server, database, statement):
        tags = frozenset((k, v) for k, v in series.get(b"tags", {}).items() if v != b"")
        names = series[b"columns"][1:]
        for time, *values in series[b"values"]:
            fields = {name: value for name, value in zip(names, values, strict=True) if value is not None}
            points[series[b"name"], tags, time] = fields
    return points


def _series(server: RunningServer, database: str, statement: str) -> Iterator[dict[bytes, list[list[object]]]]:
    body = urllib.parse.urlencode({"q": statement, "db": database, "epoch": "ns"}).encode()
    headers = {"Accept": "application/x-msgpack"}
    if server.token:
        headers["Authorization"] = f"Token {server.token}"
    with urllib.request.urlopen(urllib.request.Request(server.url + "/query", body, headers)) as reply:
        document = msgpack.unpackb(reply.read(), raw=True, strict_map_key=False)
    for result in document[b"results"]:
        assert b"error" not in result, result
        yield from result.get(b"series", [])


def sender(server: RunningServer, database: str, policy: str = "autogen") -> Send:
    """A send over 1.x's /write (2.x has it too), as simple as can be."""
    pool = urllib3.PoolManager(maxsize=4, retries=False, timeout=10)
    target = urllib.parse.urlencode({"db": database, "rp": policy, "precision": "ns"})
    headers = {"Authorization": f"Token {server.token}"} if server.token else {}

    def send(body: memoryview) -> SendResult:
        try:
            reply = pool.request("POST", f"{server.url}/write?{target}", body=body, headers=headers)
        except urllib3.exceptions.HTTPError as error:
            raise ServerUnavailableError(str(error)) from error
        return SendResult(reply.status, reply.data.decode("utf-8", "replace"))

    return send


@contextmanager
def loopback(answer: Callable[[bytes], tuple[int, bytes]]) -> Iterator[RunningServer]:
    """A real HTTP server on loopback that answers each POST body with a status and a text; 0 hangs up."""

    class Handler(QuietHandler):
        def answer(self) -> None:
            status, text = answer(self.body())
            if status == 0:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", str(0 if status == 204 else len(text)))
            self.end_headers()
            if status != 204:
                self.wfile.write(text)

    with listening(Handler) as url:
        yield RunningServer(url=url, generation=1)
