"""The writer loses nothing in silence: every line is confirmed, refused by name, or the write fails."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from influxdb_backup.errors import (
    AccessError,
    NotVisibleError,
    RejectedPointsError,
    ServerUnavailableError,
    UnrepresentableError,
    WriteError,
)
from influxdb_backup.influx import writer as writer_module
from influxdb_backup.influx.dialect import DIALECT_1X, DIALECT_2X
from influxdb_backup.influx.protocol import WriteOptions
from influxdb_backup.influx.rejects import RejectFile, read_reject_file
from influxdb_backup.influx.writer import LineProtocolWriter, SendResult
from influxdb_backup.model import InfluxType
from influxdb_backup.shard_groups import DEFAULT_DURATION
from tests.influx_write.support import batch_of, field, loopback, read_points, sender, tag
from tests.servers import RunningServer, find_influxd1, start_influxdb1

COLUMNS = [tag("t"), field("v")]


def points(count: int, first: int = 0, **tags: str) -> list[tuple[int, dict[str, str], dict[str, float]]]:
    """So many points of one series."""
    return [(time, tags, {"v": time / 4}) for time in range(first, first + count)]


def write(server: RunningServer, options: WriteOptions, count: int, database: str = "any") -> LineProtocolWriter:
    """Writes points of one series and returns the writer."""
    with LineProtocolWriter(
        sender(server, database), DIALECT_1X, options, name="The target", shard_duration=DEFAULT_DURATION
    ) as writer:
        writer.write("m", batch_of(COLUMNS, points(count)))
    return writer


class Memory:
    """Answers of a scripted server, and what it took."""

    def __init__(self, refuse: Callable[[bytes], bool] = lambda line: False, first: list[tuple[int, bytes]] = ()):
        self.refuse = refuse
        self.script = list(first)
        self.taken: set[bytes] = set()
        self.requests = 0
        self.lock = threading.Lock()

    def __call__(self, body: bytes) -> tuple[int, bytes]:
        """The scripted answers first, then 204 or a partial refusal."""
        with self.lock:
            self.requests += 1
            if self.script:
                return self.script.pop(0)
            lines = body.splitlines()
            good = {line for line in lines if not self.refuse(line)}
            self.taken |= good
            if len(good) < len(lines):
                return 400, b'{"error":"partial write: no such luck dropped=0"}'
            return 204, b""


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_transient_answers_are_tried_again(status: int) -> None:
    """A server that is busy three times gets the same batch a fourth time, and nothing is lost."""
    memory = Memory(first=[(status, b"busy")] * 3)
    with loopback(memory) as server:
        writer = write(server, WriteOptions(connections=1, retry_seconds=20), 10)
    assert len(memory.taken) == writer.result.rows == 10
    assert memory.requests == 4
    assert not writer.result.rejects


def test_the_server_says_how_long_to_wait() -> None:
    """A batch is not sent again before the seconds of Retry-After are over, and not at all beyond the bound."""
    moments: list[float] = []

    def send(body: memoryview) -> SendResult:
        moments.append(time.monotonic())
        return SendResult(429, "busy", retry_after=1.0) if len(moments) == 1 else SendResult(204, "")

    options = WriteOptions(connections=1, retry_seconds=5)
    with LineProtocolWriter(send, DIALECT_1X, options, shard_duration=DEFAULT_DURATION) as writer:
        writer.write("m", batch_of(COLUMNS, points(3)))
    assert (writer.result.rows, len(moments)) == (3, 2)
    assert moments[1] - moments[0] >= 1.0

    def busy(body: memoryview) -> SendResult:
        return SendResult(429, "busy", retry_after=3600.0)

    started = time.monotonic()
    with (
        pytest.raises(ServerUnavailableError, match="busy"),
        LineProtocolWriter(busy, DIALECT_1X, options, shard_duration=DEFAULT_DURATION) as writer,
    ):
        writer.write("m", batch_of(COLUMNS, points(3)))
    assert time.monotonic() - started < 5


def test_a_lost_answer_is_asked_for_again() -> None:
    """When the server took a batch and its answer got lost, the batch is sent again; it counts once."""
    taken: list[bytes] = []

    def answer(body: bytes) -> tuple[int, bytes]:
        taken.append(body)
        return (0, b"") if len(taken) % 2 else (204, b"")

    with loopback(answer) as server:
        result = write(server, WriteOptions(connections=1, batch_lines=5), 10).result
    assert (result.rows, result.batches, len(taken)) == (10, 2, 4)
    assert taken[0] == taken[1]
    assert taken[2] == taken[3]


def test_a_server_that_stays_busy_fails_the_write() -> None:
    """Trying again is bounded in time and ends with the server's last words."""
    started = time.monotonic()
    with (
        loopback(Memory(first=[(503, b"hinted handoff queue full")] * 1000)) as server,
        pytest.raises(ServerUnavailableError, match="hinted handoff queue full"),
    ):
        write(server, WriteOptions(retry_seconds=1), 10)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("status", "text", "error"),
    [
        (404, b'{"error":"database not found: \\"x\\""}', NotVisibleError),
        (500, b'{"error":"retention policy not found: y"}', NotVisibleError),
        (401, b'{"error":"authorization failed"}', AccessError),
        (403, b'{"code":"forbidden","message":"insufficient permissions for write"}', AccessError),
        (200, b"<html>", WriteError),
        (302, b"", WriteError),
        (405, b"", WriteError),
    ],
)
def test_answers_that_no_repetition_helps(status: int, text: bytes, error: type[Exception]) -> None:
    """An absent target, a lack of rights and a server that is no InfluxDB fail at once, by their own names."""
    memory = Memory(first=[(status, text)] * 10)
    with loopback(memory) as server, pytest.raises(error, match="The target"):
        write(server, WriteOptions(connections=1), 10)
    assert memory.requests == 1


@settings(max_examples=25)
@given(st.sets(st.integers(0, 199), max_size=12), st.integers(1, 90), st.integers(1, 3))
def test_refused_lines_are_isolated(tmp_path: Path, bad: set[int], lines: int, connections: int) -> None:
    """Whatever subset of a batch is refused: exactly those lines are in the file, and all others are written."""
    memory = Memory(refuse=lambda line: int(line.rsplit(b" ", 1)[1]) in bad)
    file = tmp_path / f"{uuid4().hex}.lp.zst"
    options = WriteOptions(
        batch_lines=lines, connections=connections, max_rejects=len(bad), reject_file=file, retry_seconds=1
    )
    with loopback(memory) as server:
        result = write(server, options, 200).result
    assert {int(line.rsplit(b" ", 1)[1]) for line in memory.taken} == set(range(200)) - bad
    assert (result.rows, result.rejects, result.values) == (200 - len(bad), len(bad), 200 - len(bad))
    assert result.late_visibility == bool(bad)
    assert result.reject_file == (file if bad else None)
    if bad:
        content = b"".join(read_reject_file(file)).splitlines()
        assert {int(line.rsplit(b" ", 1)[1]) for line in content if not line.startswith(b"#")} == bad
        assert sum(line.startswith(b"# 400") for line in content) == len(bad)
        assert "no such luck" in result.reject_reasons[0]


def test_more_rejects_than_allowed_fail_the_write(tmp_path: Path) -> None:
    """The error names the file, the count and the reason, and the writer stops to send."""
    memory = Memory(refuse=lambda line: int(line.rsplit(b" ", 1)[1]) >= 500)
    file = tmp_path / "rejects.lp.zst"
    options = WriteOptions(batch_lines=100, max_rejects=3, reject_file=file, connections=1, retry_seconds=1)
    with loopback(memory) as server, pytest.raises(RejectedPointsError) as caught:
        write(server, options, 100_000)
    count = int(re.search(r"refused (\d+) points", str(caught.value))[1])
    assert count > 3
    assert str(file) in str(caught.value)
    assert "no such luck" in str(caught.value)
    content = b"".join(read_reject_file(file)).splitlines()
    assert sum(not line.startswith(b"#") for line in content) == count
    assert memory.requests < 1000


def test_a_reject_file_is_continued(tmp_path: Path) -> None:
    """A second write with the same reject file keeps what the first one put there."""
    file = tmp_path / "rejects.lp.zst"
    options = WriteOptions(max_rejects=1, reject_file=file, retry_seconds=1)
    for _ in range(2):
        with loopback(Memory(refuse=lambda line: line.endswith(b" 1"))) as server:
            write(server, options, 3)
    content = b"".join(read_reject_file(file)).splitlines()
    assert [line for line in content if not line.startswith(b"#")] == [b"m v=0.25 1"] * 2


def test_a_reject_file_is_whole_before_it_is_closed(tmp_path: Path) -> None:
    """A process that is killed leaves every line that it had refused."""
    file = RejectFile(tmp_path / "rejects.lp.zst")
    for number in range(3):
        file.add(b"m v=1 %d\n" % number, "because")
        content = b"".join(read_reject_file(tmp_path / "rejects.lp.zst")).splitlines()
        assert content == [line for n in range(number + 1) for line in (b"# because", b"m v=1 %d" % n)]
    file.close()


def test_lines_with_newlines_are_not_torn(tmp_path: Path) -> None:
    """A refused batch is halved between points, never inside of a string."""
    rows = [(time, {}, {"s": f'a\n#{time}\n\\"b'}) for time in range(20)]
    bodies: list[bytes] = []

    def answer(body: bytes) -> tuple[int, bytes]:
        bodies.append(body)
        return (204, b"") if body.count(b'm s="') == 1 and b"#7\n" not in body else (400, b"no")

    file = tmp_path / "rejects.lp.zst"
    options = WriteOptions(max_rejects=1, reject_file=file, connections=1)
    columns = [field("s", InfluxType.STRING)]
    with (
        loopback(answer) as server,
        LineProtocolWriter(sender(server, "any"), DIALECT_1X, options, shard_duration=DEFAULT_DURATION) as writer,
    ):
        writer.write("m", batch_of(columns, rows))
    assert writer.result.rows == 19
    assert all(body.startswith(b'm s="') and body.endswith(b"\n") for body in bodies)
    assert b"".join(read_reject_file(file)).endswith(b'm s="a\n#7\n\\\\\\"b" 7\n')


def test_a_body_that_is_too_large_is_halved() -> None:
    """413 means nothing was written; smaller bodies are."""
    sizes: list[int] = []

    def answer(body: bytes) -> tuple[int, bytes]:
        sizes.append(len(body))
        return (413, b"too large") if len(body) > 200 else (204, b"")

    with loopback(answer) as server:
        result = write(server, WriteOptions(connections=1), 100).result
    assert result.rows == 100
    assert not result.late_visibility
    assert sum(size for size in sizes if size <= 200) == result.bytes


def test_an_error_of_a_connection_surfaces_in_the_next_write() -> None:
    """A writer whose connections failed raises in write, it does not wait for ever."""

    def send(body: memoryview) -> SendResult:
        raise ZeroDivisionError("a fault in the sender")

    with (
        pytest.raises(ZeroDivisionError),
        LineProtocolWriter(send, DIALECT_1X, WriteOptions(batch_lines=1), shard_duration=DEFAULT_DURATION) as writer,
    ):
        for first in range(0, 10_000, 10):
            writer.write("m", batch_of(COLUMNS, points(10, first)))
    assert writer.result.rows == 0


def test_an_error_of_the_caller_stops_the_connections() -> None:
    """Leaving the block by an exception ends the threads and keeps the exception."""
    with (
        loopback(Memory(first=[(503, b"busy")] * 1000)) as server,
        pytest.raises(KeyError),
        LineProtocolWriter(
            sender(server, "any"), DIALECT_1X, WriteOptions(batch_lines=1), shard_duration=DEFAULT_DURATION
        ) as writer,
    ):
        writer.write("m", batch_of(COLUMNS, points(2)))
        raise KeyError("mine")
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("influxdb-write")]


def test_small_tables_share_a_batch() -> None:
    """Points of many small tables travel together, up to the bounds of a batch."""
    memory = Memory()
    with (
        loopback(memory) as server,
        LineProtocolWriter(
            sender(server, "any"), DIALECT_1X, WriteOptions(batch_lines=50), shard_duration=DEFAULT_DURATION
        ) as writer,
    ):
        for number in range(100):
            writer.write(f"m{number}", batch_of(COLUMNS, points(1)))
    assert memory.requests == writer.result.batches == 2
    assert len(memory.taken) == 100


def test_a_row_that_cannot_be_written_stops_before_it_is_sent() -> None:
    """The writer itself refuses what line protocol would lose, even when nobody asked before."""
    memory = Memory()
    with (
        loopback(memory) as server,
        pytest.raises(UnrepresentableError, match="comment"),
        LineProtocolWriter(
            sender(server, "any"), DIALECT_1X, WriteOptions(), shard_duration=DEFAULT_DURATION
        ) as writer,
    ):
        writer.write("#m", batch_of(COLUMNS, points(1)))
    assert memory.requests == 0


def test_a_shard_that_stays_closed_is_told_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon, and not as load: to wait does not help there."""
    monkeypatch.setattr(writer_module, "_CLOSED_SECONDS", 0.2)
    closed = b'{"code":"internal error","message":"unexpected error writing points to database: engine is closed"}'
    with (
        loopback(Memory(first=[(500, closed)] * 1000)) as server,
        pytest.raises(ServerUnavailableError, match="engine is closed") as caught,
        LineProtocolWriter(
            sender(server, "any"), DIALECT_1X, WriteOptions(retry_seconds=300), shard_duration=DEFAULT_DURATION
        ) as writer,
    ):
        writer.write("m", batch_of(COLUMNS, points(1)))
    assert "drop the target database" in caught.value.hint


def test_a_killed_server_fails_the_write(tmp_path: Path) -> None:
    """When the server dies in mid-write the write fails; what it had confirmed can be read after a restart."""
    binary = find_influxd1()
    assert binary is not None
    with start_influxdb1(tmp_path, binary) as server:
        server.create_database("d")
        options = WriteOptions(batch_lines=100, retry_seconds=1)
        with (
            pytest.raises(ServerUnavailableError, match="did not take a batch"),
            LineProtocolWriter(
                sender(server, "d"), DIALECT_1X, options, name="The target", shard_duration=DEFAULT_DURATION
            ) as writer,
        ):
            for first in range(0, 10**7, 1000):
                writer.write("m", batch_of(COLUMNS, points(1000, first)))
                if writer.result.rows > 5000:
                    os.kill(server.pid, signal.SIGKILL)
        confirmed = writer.result.rows
        assert confirmed > 5000
    with start_influxdb1(tmp_path, binary) as server:
        assert len(read_points(server, "d")) >= confirmed


def test_type_conflicts_and_expired_points_on_a_real_server(any_influx: RunningServer, tmp_path: Path) -> None:
    """Real partial refusals, of which the server names one at best: all lost points are found, others are there."""
    database = f"db_{uuid4().hex[:12]}"
    any_influx.create_database(database)
    any_influx.write('m,t=a v="text" 5\nm,t=a v=true 700000000000000000', database)
    dialect = DIALECT_1X if any_influx.generation == 1 else DIALECT_2X
    file = tmp_path / "rejects.lp.zst"
    options = WriteOptions(max_rejects=40, reject_file=file, batch_lines=30)
    columns = [tag("t"), field("v"), field("w")]
    rows = [
        (first + time, {"t": "b"}, {"v" if time % 10 == 7 else "w": 1.0})
        for first in (0, 700000000000000000, 1400000000000000000)
        for time in range(100)
    ]
    with LineProtocolWriter(sender(any_influx, database), dialect, options, shard_duration=DEFAULT_DURATION) as writer:
        writer.write("m", batch_of(columns, rows))
    assert writer.result.rejects == 20
    assert writer.result.rows == 280
    assert writer.result.late_visibility
    assert any("field type conflict" in reason for reason in writer.result.reject_reasons)
    time.sleep(0.6)
    series = any_influx.query('SELECT count(*) FROM "m"', db=database)["results"][0]["series"][0]
    counts = dict(zip(series["columns"], series["values"][0], strict=True))
    assert counts["count_w"] == 270
    refused = [line for line in b"".join(read_reject_file(file)).splitlines() if not line.startswith(b"#")]
    assert sorted(refused) == sorted(
        b"m,t=b v=1 %d" % (first + time) for first in (0, 700000000000000000) for time in range(7, 100, 10)
    )


def test_points_beyond_retention_on_a_real_server(influx1: RunningServer, tmp_path: Path) -> None:
    """Points that the target's policy would drop are refused points, not lost ones."""
    database = f"db_{uuid4().hex[:12]}"
    influx1.query(f'CREATE DATABASE "{database}" WITH DURATION 1d NAME "short"')
    now = time.time_ns()
    rows = [*points(5), *[(now + n, {}, {"v": 1.0}) for n in range(5)]]
    file = tmp_path / "rejects.lp.zst"
    with (
        pytest.raises(RejectedPointsError, match="retention"),
        LineProtocolWriter(
            sender(influx1, database, "short"),
            DIALECT_1X,
            WriteOptions(reject_file=file),
            shard_duration=DEFAULT_DURATION,
        ) as writer,
    ):
        writer.write("m", batch_of(COLUMNS, rows))
    assert writer.result.rejects == 5
    assert len(read_points(influx1, database, policy="short")) == 5


def test_bodies_over_the_servers_limit_are_halved(tmp_path: Path) -> None:
    """A body over the 25 MB that a real server takes by default arrives in halves."""
    binary = find_influxd1()
    assert binary is not None
    with start_influxdb1(tmp_path, binary) as server:
        server.create_database("d")
        strings = [(n, {}, {"s": "x" * 400_000}) for n in range(80)]
        options = WriteOptions(batch_bytes=2**26, connections=1)
        with LineProtocolWriter(sender(server, "d"), DIALECT_1X, options, shard_duration=DEFAULT_DURATION) as writer:
            writer.write("m", batch_of([field("s", InfluxType.STRING)], strings))
        assert writer.result.rows == 80
        found = server.query('SELECT count("s") FROM "m"', db="d")["results"][0]["series"][0]["values"][0][1]
        assert found == 80
