"""Helpers: opened servers, a server that replays given bytes, and reading a table whole."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread

import msgpack
import pyarrow as pa

from influxdb_backup.errors import IncompleteReadError
from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.protocol import ReadOptions, Server, ServerSettings
from influxdb_backup.model import TableSchema, Window
from tests.servers import RunningServer

WEEK = 7 * 86400 * 1_000_000_000
MONDAY = 1_699_833_600 * 1_000_000_000
"""2023-11-13T00:00:00Z, where a shard group of seven days starts"""
WINDOW = Window(start=MONDAY, end=MONDAY + WEEK)


def opened(running: RunningServer, **more: str) -> Server:
    """The product's server over a running one."""
    return connect(ServerSettings(url=running.url, token=running.token, **more))


def table_of(server: Server, database: str, measurement: str, policy: str = "autogen") -> TableSchema:
    """One readable table of a policy's schema."""
    return next(table for table in server.schema(database, policy).tables if table.table.measurement == measurement)


def read_rows(
    server: Server,
    database: str,
    measurement: str,
    piece: Window = WINDOW,
    policy: str = "autogen",
    options: ReadOptions = ReadOptions(),  # noqa: B008 - frozen
) -> list[dict[str, object]]:
    """Rows of one table in one piece; values by InfluxDB name, times in ns, nulls left out."""
    table = table_of(server, database, measurement, policy)
    try:
        batches = list(server.read(database, table, piece, options))
    except IncompleteReadError as error:
        if error.kind != "schema-changed":
            raise
        batches = list(server.read(database, table, piece, options))
    return [row for batch in batches for row in rows_of(batch)]


def rows_of(batch: pa.RecordBatch) -> list[dict[str, object]]:
    """Rows of a batch; tags as ``tag``/name, nulls left out."""
    columns = {"time": batch.column(0).cast(pa.int64()).to_pylist()}
    for field, column in zip(list(batch.schema)[1:], batch.columns[1:], strict=True):
        role = field.metadata[b"influxdb:role"].decode()
        name = field.metadata[b"influxdb:name"].decode("utf-8", "surrogateescape")
        columns[f"@{name}" if role == "tag" else name] = column.to_pylist()
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return [{key: value for key, value in row.items() if value is not None} for row in rows]


def document(series: Sequence[dict[str, object]] = (), *, partial: bool = False, error: str | None = None) -> bytes:
    """One document of a reply, as a server encodes it."""
    result: dict[str, object] = {"error": error} if error else {"statement_id": 0, "series": list(series)}
    if partial:
        result["partial"] = True
    return bytes(msgpack.packb({"results": [result]}, use_bin_type=False))


def reply(body: bytes, *, status: str = "200 OK", kind: str = "application/x-msgpack", end: bool = True) -> bytes:
    """A chunked HTTP reply; without ``end`` the last chunk is missing, as when the server is killed."""
    chunk = b"%x\r\n%s\r\n" % (len(body), body) if body else b""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head + chunk + (b"0\r\n\r\n" if end else b"")


@contextmanager
def replaying(*replies: bytes) -> Iterator[str]:
    """A loopback server that answers the k-th connection with the k-th bytes (b"": closes it) and then hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for answer in replies:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                _request(connection)
                if answer:
                    connection.sendall(answer)

    thread = Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def _request(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next((int(x.split(b":")[1]) for x in head.split(b"\r\n") if x.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
