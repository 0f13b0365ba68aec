"""What is particular to 1.x: policies, shards, rights, limits of queries, and databases that are made and dropped."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path

import pytest

from influxdb_backup.errors import (
    AccessError,
    IncompleteReadError,
    InfluxdbBackupError,
    NotVisibleError,
    QueryError,
    ServerError,
    ServerUnavailableError,
    TargetError,
    UnsupportedServerError,
    UsageError,
)
from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.http import Http
from influxdb_backup.influx.marks import mark_policy
from influxdb_backup.influx.protocol import (
    Mark,
    MarkedDatabase,
    ReadOptions,
    ServerSettings,
    WriteOptions,
    new_marked_name,
)
from influxdb_backup.model import RetentionPolicy, Window, decode_name
from tests.influx_read.support import MONDAY, WEEK, WINDOW, opened, read_rows, replaying, reply, table_of
from tests.servers import RunningServer, find_influxd1, start_influxdb1

DAY = 86_400 * 1_000_000_000
MARK = Mark("somebody-1", 1_796_102_345 * 10**9)
HOUR = DAY // 24


@pytest.fixture(params=["influx1", "newer_influx1"])
def one(request: pytest.FixtureRequest) -> RunningServer:
    """Each 1.x server that is at hand."""
    server: RunningServer = request.getfixturevalue(request.param)
    return server


def as_root(server: RunningServer, path: str, body: bytes) -> None:
    """A raw POST with the administrator's rights."""
    login = base64.b64encode(b"root:r00t").decode()
    request = urllib.request.Request(server.url + path, body, {"Authorization": f"Basic {login}"})
    with urllib.request.urlopen(request) as answer:
        said = answer.read()
    assert b'"error"' not in said, said


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A 1.x server with users: root may all, ro may read the database d."""
    binary = find_influxd1()
    assert binary is not None
    with start_influxdb1(tmp_path_factory.mktemp("guarded"), binary, auth=True) as server:
        connected = ServerSettings(url=server.url, username="root", password="r00t")
        server.query("CREATE USER root WITH PASSWORD 'r00t' WITH ALL PRIVILEGES")
        root = connect(connected)
        root.create_database("d", [RetentionPolicy(name="autogen", duration=0, shard_duration=DAY)])
        for statement in ("CREATE USER ro WITH PASSWORD 'ro'", "GRANT READ ON d TO ro"):
            as_root(server, "/query?" + urllib.parse.urlencode({"q": statement}), b"")
        yield server


def test_each_policy_has_its_own_tables(one: RunningServer, database: str) -> None:
    """Equal measurement names in two policies are two tables; one that is only in the other policy is not shown."""
    one.create_database(database)
    one.query(f'CREATE RETENTION POLICY "two" ON "{database}" DURATION 520w REPLICATION 1 SHARD DURATION 1d')
    now = time.time_ns() // DAY * DAY
    one.write(f"both v=1 {now}\nfirst v=1 {now}", database)
    one.write(f'both,t=x v="text",w=2i {now}\nsecond v=1 {now}', database, "two")
    server = opened(one)
    first, second = server.schema(database, "autogen"), server.schema(database, "two")
    assert [t.table.measurement for t in first.tables] == ["both", "first"]
    assert [t.table.measurement for t in second.tables] == ["both", "second"]
    assert not first.unreadable
    assert not second.unreadable
    piece = Window(start=now, end=now + 1)
    assert read_rows(server, database, "both", piece) == [{"time": now, "v": 1.0}]
    assert read_rows(server, database, "both", piece, "two") == [{"time": now, "@t": "x", "v": "text", "w": 2}]
    policies = {policy.name: policy for policy in server.retention_policies(database)}
    assert policies["two"].duration == 520 * WEEK
    assert policies["two"].shard_duration == DAY
    assert policies["autogen"].default


def test_tables_that_no_query_reads_are_named(one: RunningServer, database: str) -> None:
    """Reserved names, ghosts and names that look alike to the server are in the result, and nothing else is lost."""
    one.create_database(database)
    for k, name in enumerate(
        [b"_series", b"_fieldKeys", b"_tagKeys", b"_name", b"in\xff", b"in\xfe", b"ok", b"g\\\\ h"]
    ):
        one.write(name + b",t=%d v=%d %d" % (k, k, MONDAY), database)
    server = opened(one)
    schema = server.schema(database, "autogen")
    hidden = {table.table.measurement for table in schema.unreadable}
    expected = {"_series", "_fieldKeys", "_tagKeys", decode_name(b"in\xff"), decode_name(b"in\xfe")}
    assert expected <= hidden
    assert hidden - expected <= {"g h", "g\\ h"}
    assert len(hidden) == 6
    assert [t.table.measurement for t in schema.tables] == ["_name", "ok"]
    assert all(table.reason for table in schema.unreadable)
    assert [row["v"] for row in read_rows(server, database, "_name")] == [3]


def test_pieces_follow_the_shards_after_the_duration_was_altered(one: RunningServer, database: str) -> None:
    """Boundaries come from the server: those of the old duration stay, and stretches without a group are covered."""
    one.create_database(database)
    one.write(f"m v=1 {MONDAY}", database)
    one.query(f'ALTER RETENTION POLICY "autogen" ON "{database}" SHARD DURATION 1d')
    one.write(f"m v=1 {MONDAY + WEEK + DAY}\nm v=1 {MONDAY + 3 * WEEK}", database)
    window = Window(start=MONDAY - 5, end=MONDAY + 4 * WEEK)
    pieces = opened(one).pieces(database, "autogen", window)
    edges = [MONDAY - 5, MONDAY, MONDAY + WEEK, MONDAY + WEEK + DAY, MONDAY + WEEK + 2 * DAY]
    assert [piece.start for piece in pieces][:5] == edges
    assert all(a.end == b.start for a, b in pairwise(pieces))
    assert pieces[-1].end == window.end


def test_without_administrator_rights_pieces_come_from_explain(guarded: RunningServer) -> None:
    """A reader's pieces cut wherever points of two groups would meet, and reading needs no more than READ."""
    root = connect(ServerSettings(url=guarded.url, username="root", password="r00t"))
    reader = connect(ServerSettings(url=guarded.url, username="ro", password="ro"))
    days = [0, 1, 5, 40]
    for day, value in zip(days, ["1", "2i", '"x"', "true"], strict=True):
        line = f"a v={value} {MONDAY + day * DAY}\nb v={value} {MONDAY + day * DAY + 5}"
        as_root(guarded, "/write?db=d", line.encode())
    window = Window(start=MONDAY - HOUR, end=MONDAY + 60 * DAY)
    cuts = {piece.start for piece in reader.pieces("d", "autogen", window)}
    assert cuts == {MONDAY - HOUR, *(MONDAY + day * DAY for day in days)}
    assert cuts <= {piece.start for piece in root.pieces("d", "autogen", window)}
    values = [row["v"] for piece in reader.pieces("d", "autogen", window) for row in read_rows(reader, "d", "a", piece)]
    assert values == [1.0, 2, "x", True]
    assert reader.databases() == ("d",)


def test_refused_credentials_and_missing_rights_are_access_errors(guarded: RunningServer) -> None:
    """A wrong password is an AccessError at once; so is a statement that the user may not run."""
    with pytest.raises(AccessError) as caught:
        connect(ServerSettings(url=guarded.url, username="ro", password="wr0ng")).databases()
    assert "wr0ng" not in str(caught.value)
    reader = connect(ServerSettings(url=guarded.url, token="ro:ro"))
    with pytest.raises(AccessError):
        reader.select("d", None, "SHOW SHARDS")
    with pytest.raises((AccessError, NotVisibleError)):
        reader.create_scratch("scratch", [], MARK)


def fill(server: RunningServer, database: str, series: int = 20, rows: int = 1000) -> None:
    """A table of 24 MB, more than the sockets between server and reader hold."""
    text = "x" * 1200
    server.create_database(database)
    for s in range(series):
        lines = "\n".join(f'big,s={s} a={k}.5,text="{text}" {MONDAY + k * 1000}' for k in range(rows))
        server.write(lines, database)


def test_a_query_that_is_killed_is_an_incomplete_read(influx1: RunningServer, database: str) -> None:
    """KILL QUERY in mid-stream ends the read with an error, whatever was read before."""
    fill(influx1, database)
    server = opened(influx1)
    killed = threading.Event()

    def kill() -> None:
        for series in influx1.query("SHOW QUERIES")["results"][0]["series"]:  # type: ignore[index]
            for row in series["values"]:
                if "big" in row[1]:
                    influx1.query(f"KILL QUERY {row[0]}")
                    killed.set()

    with pytest.raises(IncompleteReadError, match="interrupted"):
        for _ in server.read(database, table_of(server, database, "big"), WINDOW, ReadOptions(batch_rows=500)):
            if not killed.is_set():
                kill()
    assert killed.is_set()


@pytest.mark.parametrize(
    ("limits", "words"),
    [("max-select-point = 500", "max-select-point"), ('query-timeout = "1s"', "query-timeout")],
)
def test_limits_of_the_server_are_named(tmp_path: Path, database: str, limits: str, words: str) -> None:
    """A read that meets query-timeout or max-select-point fails with read-limit, so that a shorter piece is tried."""
    binary = find_influxd1()
    assert binary is not None
    with start_influxdb1(tmp_path, binary, extra=f"[coordinator]\n  {limits}\n") as running:
        fill(running, database)
        server = opened(running)
        table = table_of(server, database, "big")
        with pytest.raises(IncompleteReadError, match=words) as caught:
            for number, _ in enumerate(server.read(database, table, WINDOW, ReadOptions(batch_rows=500))):
                time.sleep(0 if number else 2.5)  # the server looks at its limits about once a second
        assert caught.value.kind == "read-limit"
        short = Window(start=MONDAY, end=MONDAY + 100_000)
        assert sum(batch.num_rows for batch in server.read(database, table, short, ReadOptions())) == 2000


def test_a_server_that_is_killed_in_mid_read_is_an_incomplete_read(tmp_path: Path, database: str) -> None:
    """SIGKILL cuts the stream: the read fails, and later calls say that the server is away."""
    binary = find_influxd1()
    assert binary is not None
    with start_influxdb1(tmp_path, binary) as running:
        fill(running, database)
        server = opened(running)
        table = table_of(server, database, "big")
        reading = server.read(database, table, WINDOW, ReadOptions(batch_rows=500))
        next(reading)
        os.kill(running.pid, signal.SIGKILL)
        with pytest.raises(IncompleteReadError) as caught:
            list(reading)
        assert caught.value.kind == "read-limit"


def test_a_scratch_is_new_empty_and_infinite(one: RunningServer, database: str) -> None:
    """Policies and shard durations are kept, durations are infinite; a name in use is refused; dropping proves it."""
    server = opened(one)
    policies = [
        RetentionPolicy(name="hot", duration=2 * WEEK, shard_duration=HOUR * 2, default=True),
        RetentionPolicy(name='co"ld', duration=0, shard_duration=WEEK),
    ]
    scratch = server.create_scratch(database, policies, MARK)
    found = {policy.name: policy for policy in server.retention_policies(database)}
    assert set(found) == {"hot", 'co"ld', mark_policy(MARK).name}
    assert found["hot"].default
    assert (found["hot"].duration, found["hot"].shard_duration) == (0, 2 * HOUR)
    assert found['co"ld'].shard_duration == WEEK
    with pytest.raises(TargetError):
        server.create_scratch(database, policies, MARK)
    with pytest.raises(UsageError):
        server.drop_scratch(database, "another")
    server.drop_scratch(database, scratch)
    assert database not in server.databases()
    server.drop_scratch(database, scratch)


def test_a_scratch_shows_itself(one: RunningServer, database: str) -> None:
    """The server lists for whom it was made, and until when that one is at work; other databases are not listed."""
    server = opened(one)
    name, plain = new_marked_name("drill"), new_marked_name("drill")

    def listed() -> tuple[MarkedDatabase, ...]:
        return tuple(scratch for scratch in server.scratches() if scratch.name in {name, plain, database})

    one.create_database(plain)
    server.create_scratch(database, [], MARK)  # not of a scratch's name
    server.create_scratch(name, [], MARK)
    assert listed() == (MarkedDatabase(name, name, MARK),)
    later = Mark(MARK.owner, server.now() + WEEK)
    server.renew_scratch(name, name, later)
    assert [scratch.mark for scratch in listed()] == [later]
    assert [policy.name for policy in server.retention_policies(name) if policy.default] == ["autogen"]
    for dropped in (name, database, plain):
        server.drop_scratch(dropped, dropped)
    assert listed() == ()


@pytest.mark.parametrize("theirs", ["points", "policy"])
def test_a_scratch_that_somebody_else_makes_at_the_same_moment_is_refused(
    one: RunningServer, database: str, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    """A database that is there after the look is refused the mark by the server, and stays as it is."""
    server = opened(one)
    look = server.databases
    looked = 0

    def look_and_be_late() -> tuple[str, ...]:
        nonlocal looked
        found, looked = look(), looked + 1
        if looked == 1:
            one.create_database(database)
            if theirs == "points":
                one.write("precious v=1 1", database)
            else:
                one.query(f'CREATE RETENTION POLICY "theirs" ON "{database}" DURATION INF REPLICATION 1')
        return found

    monkeypatch.setattr(server, "databases", look_and_be_late)
    with pytest.raises(TargetError):
        server.create_scratch(database, [], MARK)
    assert database in look()
    assert [row["v"] for row in server.select(database, "autogen", "SELECT v FROM precious")] == (
        [1] if theirs == "points" else []
    )


def test_create_database_adds_what_is_missing_and_changes_nothing(one: RunningServer, database: str) -> None:
    """The first call creates, the second adds one policy, and an existing policy keeps its duration."""
    server = opened(one)
    first = RetentionPolicy(name="a", duration=WEEK, shard_duration=DAY, default=True)
    assert server.create_database(database, [first]) == (database, "a")
    second = RetentionPolicy(name="b", duration=0, shard_duration=WEEK)
    assert server.create_database(database, [first.model_copy(update={"duration": 0}), second]) == ("b",)
    found = {policy.name: policy.duration for policy in server.retention_policies(database)}
    assert found == {"a": WEEK, "b": 0}
    server.alter_retention(database, "a", 4 * WEEK)
    assert server.retention_policies(database)[0].duration == 4 * WEEK
    with pytest.raises(NotVisibleError):
        server.alter_retention(database, "nosuch", 0)


def test_what_is_read_can_be_written_again(one: RunningServer, database: str) -> None:
    """A table copied through the writer into another database is read back equal."""
    one.create_database(database)
    one.create_database(database + "_copy")
    one.write(f'm,t=a\\ b f=-0.0,i=5i,s="x\ny",b=true {MONDAY}\nm f=2 {MONDAY + 1}', database)
    server = opened(one)
    table = table_of(server, database, "m")
    with server.writer(database + "_copy", "autogen", WriteOptions()) as writer:
        for batch in server.read(database, table, WINDOW, ReadOptions()):
            assert server.unrepresentable("m", table.columns, batch, WriteOptions()) == []
            writer.write("m", batch)
    assert writer.result.rows == 2
    copy = read_rows(server, database + "_copy", "m")
    assert sorted(map(str, copy)) == sorted(map(str, read_rows(server, database, "m")))
    with pytest.raises(NotVisibleError):
        server.writer(database, "nosuch", WriteOptions())


def test_select_returns_rows_and_never_writes(any_influx: RunningServer, database: str) -> None:
    """Rows carry columns and tags; anything that could write is refused; the server's words come through."""
    any_influx.create_database(database)
    any_influx.write(f"m,t=a v=1 {MONDAY}\nm,t=b v=2 {MONDAY}", database)
    server = opened(any_influx)
    assert server.select(database, "autogen", "SELECT sum(v) FROM m GROUP BY t") == [
        {"t": "a", "time": 0, "sum": 1.0},
        {"t": "b", "time": 0, "sum": 2.0},
    ]
    for query in ("DROP MEASUREMENT m", "SELECT * INTO x FROM m", "SELECT 1 FROM m; DELETE FROM m"):
        with pytest.raises(UsageError):
            server.select(database, "autogen", query)
    with pytest.raises(QueryError, match="expected"):
        server.select(database, "autogen", "SELECT FROM")


def test_the_clock_is_the_servers(any_influx: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """now() is whole seconds of the Date header, whatever this machine's clock says."""
    server = opened(any_influx)
    actual = time.time()
    for wrong in (-DAY, DAY):
        shown = int(actual * 10**9) + wrong
        monkeypatch.setattr(time, "time_ns", lambda shown=shown: shown)
        monkeypatch.setattr(time, "time", lambda shown=shown: shown / 10**9)
        moment = server.now()
        assert moment % 1_000_000_000 == 0
        assert abs(moment - actual * 10**9) < 60 * 10**9


@pytest.mark.parametrize("date", [b"", b"Date: yesterday\r\n"])
def test_a_reply_without_a_date_is_no_clock(date: bytes) -> None:
    """Without the server's clock nothing is decided, least of all by this machine's."""
    head = b"HTTP/1.1 204 No Content\r\n"
    with replaying(head + date + b"\r\n") as url, pytest.raises(ServerError, match="no Date header"):
        Http(ServerSettings(url=url, name="plant-7"), retry_seconds=0.2).now()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 204 No Content\r\nX-Influxdb-Version: 1.5.4\r\n\r\n", UnsupportedServerError),
        (b"HTTP/1.1 204 No Content\r\nX-Influxdb-Version: v2.3.0\r\n\r\n", UnsupportedServerError),
        (reply(b'{"version":"3.4.1","revision":"x"}', kind="application/json"), UnsupportedServerError),
        (reply(b"<html>hello</html>", kind="text/html"), InfluxdbBackupError),
        (reply(b"", status="401 Unauthorized"), AccessError),
    ],
)
def test_other_products_and_versions_are_refused(answer: bytes, kind: type[InfluxdbBackupError]) -> None:
    """A version that is too old, a 3.x server, or something else is named and not guessed at."""
    with replaying(answer, reply(b"nothing", status="404 Not Found", kind="text/plain")) as url, pytest.raises(kind):
        connect(ServerSettings(url=url))


@contextlib.contextmanager
def _answering(health: bytes) -> Iterator[str]:
    """A server whose /ping tells no version and whose /health has this body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = health if self.path == "/health" else b""
            self.send_response({"/ping": 204, "/health": 200}.get(self.path, 404))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Keeps the test's output clean."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        (b'{"name":"influxdb","message":"ready","status":"pass","version":"1.8.10"}', "1.8.10"),
        (b'{"name":"another","status":"pass","version":"1.8.10"}', UnsupportedServerError),
        (b'{"name":"influxdb","status":"pass"}', UnsupportedServerError),
        (b"not json", UnsupportedServerError),
    ],
)
def test_health_tells_what_ping_does_not(health: bytes, expected: object) -> None:
    """Behind a proxy that takes the header of /ping away /health is asked, and believed when it says influxdb."""
    with _answering(health) as url:
        if expected is UnsupportedServerError:
            with pytest.raises(UnsupportedServerError):
                connect(ServerSettings(url=url))
            return
        assert connect(ServerSettings(url=url)).info.version == expected


def test_health_of_real_servers_says_what_they_are(any_influx: RunningServer) -> None:
    """The name and version that detection relies on, where the version has /health at all (1.8 and later)."""
    found: dict[str, str] = {}
    with contextlib.suppress(urllib.error.HTTPError):
        found = json.loads(any_influx.get("/health"))
    if opened(any_influx).info.version.startswith("1.6"):
        assert found == {}
        return
    assert found["name"] == "influxdb"
    assert found["version"].lstrip("v") == opened(any_influx).info.version


def test_detection_says_product_version_and_generation(any_influx: RunningServer) -> None:
    """/ping tells the version; a version in the settings skips the question."""
    info = opened(any_influx).info
    assert (info.product, info.generation) == ("influxdb", any_influx.generation)
    assert info.version.startswith(f"{any_influx.generation}.")
    given = opened(any_influx, version="1.8.10" if any_influx.generation == 1 else "2.7")
    assert given.info.version in {"1.8.10", "2.7"}


def test_a_server_that_is_not_there_is_unavailable() -> None:
    """Nothing listens: the error is retryable and names the server."""
    with replaying() as url:
        pass
    with pytest.raises(ServerUnavailableError, match="plant-7") as caught:
        Http(ServerSettings(url=url, name="plant-7"), retry_seconds=0.2).now()
    assert caught.value.retryable
