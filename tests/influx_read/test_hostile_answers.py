"""Answers whose bytes were changed on their way: what comes of them is right in form, or an error of ours."""

from __future__ import annotations

import random
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgpack
import pytest

from influxdb_backup.errors import IncompleteReadError, InfluxdbBackupError
from influxdb_backup.influx.protocol import ReadOptions, Server
from influxdb_backup.model import Window
from tests.influx_read.support import MONDAY, WINDOW, opened, read_rows, replaying, reply, rows_of, table_of
from tests.listening import QuietHandler, listening
from tests.servers import RunningServer

Change = Callable[[bytes], bytes]
MUTATIONS = 400


@contextmanager
def through(running: RunningServer, change: list[Change]) -> Iterator[str]:
    """A relay to the server that changes the answers of queries by the last of ``change``."""

    class Relay(QuietHandler):
        def answer(self) -> None:
            request = urllib.request.Request(
                running.url + self.path, self.body() or None, dict(self.headers.items()), method=self.command
            )
            try:
                with urllib.request.urlopen(request) as answer:
                    status, headers, body = answer.status, answer.headers, answer.read()
            except urllib.error.HTTPError as error:
                status, headers, body = error.code, error.headers, error.read()
            if self.path.startswith("/query"):
                body = change[-1](body)
            self.send_response(status)
            for name in ("Content-Type", "Date", "X-Influxdb-Version", "X-Influxdb-Build"):
                if headers.get(name):
                    self.send_header(name, headers[name])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with listening(Relay) as url:
        yield url


def mutation(randomness: random.Random) -> Change:
    """One byte changed, taken out or put in, or the rest cut off: mostly bytes that mean something to msgpack."""
    how, place = randomness.choice(("change", "change", "change", "remove", "insert", "cut")), randomness.random()
    byte = randomness.choice((*range(0x80, 0xE0), *range(0, 256, 17)))

    def changed(body: bytes) -> bytes:
        at = int(place * len(body))
        if how == "cut":
            return body[:at]
        rest = body[at + (how != "insert") :]
        return body[:at] + (b"" if how == "remove" else bytes([byte])) + rest

    return changed


def asked(server: Server, database: str, known: object) -> list[Callable[[], object]]:
    """Every listing, count and read of the protocol."""
    return [
        server.databases,
        lambda: server.retention_policies(database),
        lambda: server.schema(database, "autogen"),
        lambda: server.pieces(database, "autogen", WINDOW),
        lambda: server.overlaps(database, "autogen", WINDOW),
        lambda: server.counts(database, "autogen", "m", WINDOW, ["v"]),
        lambda: server.count(database, known.table, WINDOW, "v"),
        lambda: server.has_fields(database, known.table, WINDOW, known.fields),
        lambda: [rows_of(batch) for batch in server.read(database, known, WINDOW, ReadOptions())],
        lambda: server.select(database, "autogen", "SELECT * FROM m"),
    ]


def test_changed_bytes_end_in_an_error_of_ours(newer_or_old: RunningServer, database: str) -> None:
    """Whatever stands in an answer, no other error than ours comes out, and nothing is read for ever."""
    running = newer_or_old
    running.create_database(database)
    lines = (f'm,k=a{n % 7} v={n}.5,i={n}i,t="text {n}",b=true {MONDAY + n}' for n in range(90))
    running.write("\n".join(lines) + f"\nn,k=b v=1i {MONDAY}\nn,k=b v=2 {MONDAY - 1}", database)
    change: list[Change] = [lambda body: body]
    randomness = random.Random(16)
    with through(running, change) as url:
        relayed = RunningServer(url=url, generation=running.generation, token=running.token)
        server = opened(relayed)
        known = table_of(server, database, "m")
        refused = 0
        for number in range(MUTATIONS):
            change.append(mutation(randomness))
            for ask in asked(server, database, known)[number % 2 :: 2]:
                try:
                    ask()
                except InfluxdbBackupError:
                    refused += 1
            del change[1:]
        assert refused > MUTATIONS // 4
        assert len(read_rows(server, database, "m")) == 90


@pytest.fixture(params=["influx1", "newer_influx1"])
def newer_or_old(request: pytest.FixtureRequest) -> RunningServer:
    """The servers whose listings all come by queries."""
    running: RunningServer = request.getfixturevalue(request.param)
    return running


ROW = {"name": "m", "columns": ["time", "v"], "values": [[MONDAY, 1.0]]}


@pytest.mark.parametrize(
    "series",
    [
        {**ROW, "name": 5},
        {**ROW, "columns": ["time", 7]},
        {**ROW, "columns": 7},
        {**ROW, "tags": ["k"]},
        {**ROW, "tags": {"k": 3}},
        {**ROW, "values": [[MONDAY]]},
        {**ROW, "values": [[MONDAY, 1.0, 2.0]]},
        {**ROW, "values": [5]},
        {**ROW, "values": [{"time": 1, "v": 2}]},
        {**ROW, "values": [[2**64 - 1, 1.0]]},
        {**ROW, "values": [[b"x", 1.0]]},
        {**ROW, "values": 9},
    ],
)
def test_a_series_of_another_form_is_an_incomplete_read(series: dict[str, object], influx1: RunningServer) -> None:
    """Names, tags, columns and rows are what they are said to be, or the read is incomplete and may be tried again."""
    database = f"db_{id(series)}"
    influx1.create_database(database)
    influx1.write(f"m v=1 {MONDAY}", database)
    table = table_of(opened(influx1), database, "m")
    body = bytes(msgpack.packb({"results": [{"statement_id": 0, "series": [series]}]}, use_bin_type=False))
    with replaying(reply(body), reply(body)) as url, pytest.raises(IncompleteReadError):
        list(opened_without_ping(url).read(database, table, Window(start=MONDAY, end=MONDAY + 5), ReadOptions()))


def opened_without_ping(url: str) -> Server:
    """A 1.x server that is not asked what it is."""
    return opened(RunningServer(url=url, generation=1), version="1.6.7")


def test_a_reply_that_claims_gigabytes_is_refused_at_once(influx1: RunningServer, database: str) -> None:
    """A row of two thousand million values is no row, and no memory is taken for it."""
    influx1.create_database(database)
    influx1.write(f"m v=1 {MONDAY}", database)
    table = table_of(opened(influx1), database, "m")
    packed = bytes(msgpack.packb({"results": [{"statement_id": 0, "series": [ROW]}]}, use_bin_type=False))
    body = packed.replace(bytes(msgpack.packb([MONDAY, 1.0])), b"\xdd\x7f\xff\xff\xff")
    assert body != packed
    with replaying(reply(body), reply(body)) as url, pytest.raises(IncompleteReadError):
        list(opened_without_ping(url).read(database, table, Window(start=MONDAY, end=MONDAY + 5), ReadOptions()))
