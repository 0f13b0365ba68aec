"""What goes over the wire to every kind of server: few connections, and compressed bodies where the way is long."""

from __future__ import annotations

import pytest

from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.protocol import ReadOptions, Server, ServerSettings, WriteOptions
from influxdb_backup.model import Window
from tests.influx_write.support import batch_of, field, read_points, tag
from tests.servers import RunningServer
from tests.wire import relayed

COLUMNS = [tag("t"), field("v")]
ROWS = [(time, {"t": "a"}, {"v": time / 4}) for time in range(2000)]
DAY = Window(start=0, end=86_400 * 10**9)
ELSEWHERE = "0.0.0.0"  # reaches this machine, and is none of its loopback addresses
WRITES = {1: "/write", 2: "/api/v2/write"}


def opened(running: RunningServer, url: str) -> Server:
    """The product's server over a running one, by another address."""
    return connect(ServerSettings(url=url, token=running.token, organization=running.organization))


def test_connections_are_kept(any_influx: RunningServer, database: str) -> None:
    """Reads that were taken to their end, counts and writes do not open a connection each."""
    any_influx.create_database(database)
    with relayed(any_influx.url) as wire:
        server = opened(any_influx, f"http://127.0.0.1:{wire.port}")
        with server.writer(database, "autogen", WriteOptions(connections=1, batch_lines=100)) as writer:
            writer.write("m", batch_of(COLUMNS, ROWS))
        (table,) = server.schema(database, "autogen").tables
        before = len(wire.sent)
        for _ in range(20):
            assert sum(batch.num_rows for batch in server.read(database, table, DAY, ReadOptions())) == len(ROWS)
            assert server.counts(database, "autogen", "m", DAY, ["v"]) == {"v": len(ROWS)}
            server.now()
        server.close()
    assert len(wire.of(WRITES[any_influx.generation])) == 20
    assert len(wire.heads) >= 80
    assert len(wire.sent) == before <= 4


@pytest.mark.parametrize(
    ("host", "compress", "compressed"),
    [("127.0.0.1", None, False), (ELSEWHERE, None, True), ("127.0.0.1", True, True), (ELSEWHERE, False, False)],
)
def test_bodies_are_compressed_where_the_way_is_long(
    any_influx: RunningServer, database: str, host: str, compress: bool | None, compressed: bool
) -> None:
    """Unless told otherwise bodies are made smaller elsewhere than on this machine; all have a checksum, and arrive."""
    any_influx.create_database(database)
    with relayed(any_influx.url) as wire:
        server = opened(any_influx, f"http://{host}:{wire.port}")
        with server.writer(database, "autogen", WriteOptions(compress=compress)) as writer:
            writer.write("m", batch_of(COLUMNS, ROWS))
        server.close()
    (head,) = wire.of(WRITES[any_influx.generation])
    assert b"\r\nContent-Encoding: gzip\r\n" in head
    assert len(read_points(any_influx, database)) == len(ROWS)
    plain = writer.result.bytes
    assert (sum(map(len, wire.sent)) < plain) == compressed
