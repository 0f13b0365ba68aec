"""Limits of a 1.x server that end no job and cut no listing: max-concurrent-queries and max-row-limit."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from influxdb_backup.jobs.drill import drill
from tests.jobs.support import (
    DAY,
    DAY_NS,
    WEEK,
    back_up,
    create_policy,
    fingerprints,
    local_repository,
    manifest_of,
    memory_repository,
    new_database,
    new_name,
    opened,
    plan,
    restore_into,
    window,
)
from tests.listening import QuietHandler, listening
from tests.servers import RunningServer, find_influxd1, find_newer_influxd1, start_influxdb1

MONTH = window(WEEK.start - 14 * DAY_NS, WEEK.end + 7 * DAY_NS)


@pytest.fixture(params=["1", "newer 1"])
def binary(request: pytest.FixtureRequest) -> str:
    """The daemon of a 1.x server."""
    found = find_influxd1() if request.param == "1" else find_newer_influxd1()
    if found is None:
        pytest.skip(f"no server of the kind {request.param} here")
    return found


def fill(running: RunningServer, measurements: int, days: Sequence[int] = (-8, 0, 2)) -> str:
    """A database with several shard groups, tags and fields in each measurement, and a second policy."""
    database = new_database(running)
    create_policy(running, database, "days", "DURATION INF REPLICATION 1 SHARD DURATION 1d")
    for policy in ("autogen", "days"):
        rows = [
            f"m{number},t{number % 7}=x,u=y f{day + 9}=1i,g=2.5 {WEEK.start + day * DAY_NS + 1}"
            for number in range(measurements)
            for day in days
        ]
        running.write("\n".join(rows), database, policy)
    return database


@pytest.mark.parametrize("limit", [1, 6])
def test_a_limit_of_rows_cuts_no_listing(binary: str, limit: int, tmp_path: Path) -> None:
    """With max-row-limit the backup holds what it holds without: measurements, columns, policies and shard groups."""
    with start_influxdb1(tmp_path / "server", binary) as running, opened(running) as server:
        database = fill(running, 6)
        whole = back_up(repository := memory_repository(), server, plan(database), MONTH)
        expected = manifest_of(repository, whole.ref)
    options = f"  max-row-limit = {limit}"
    with start_influxdb1(tmp_path / "server", binary, http_options=options) as running:
        running.wait_until_cold()
        for address in (None, running.backup_address):
            with opened(running, snapshot_address=address) as server:
                result = back_up(repository := memory_repository(), server, plan(database), MONTH)
                found = manifest_of(repository, result.ref)
                assert fingerprints(found) == fingerprints(expected)
                assert found.evidence.pieces == expected.evidence.pieces
                assert [entry.columns for entry in found.tables] == [entry.columns for entry in expected.tables]


@contextmanager
def dashboards(running: RunningServer, database: str) -> Iterator[None]:
    """Four clients that ask again and again; a refusal is nothing to them."""
    stopped = threading.Event()

    def ask() -> None:
        while not stopped.is_set():
            with suppress(urllib.error.URLError, OSError):
                running.query("SELECT mean(g) FROM /m.*/ WHERE time > 0 GROUP BY time(6h) FILL(none)", db=database)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stopped.set()
        for thread in threads:
            thread.join()


def test_a_server_that_is_full_is_waited_for(binary: str, tmp_path: Path) -> None:
    """Export, restore and drill of 44 measurements beside four dashboards, two queries at a time on the server."""
    extra = "[coordinator]\n  max-concurrent-queries = 2\n"
    with start_influxdb1(tmp_path / "server", binary, extra) as running, opened(running) as server:
        database = fill(running, 44)
        repository = local_repository(tmp_path)
        chosen = plan(database, name="telemetry", drill={"writer": "lines"})
        with dashboards(running, database):
            result = back_up(repository, server, chosen, DAY)
            assert result.rows == 88
            report = restore_into(repository, server, new_name("copy"), refs=(result.ref,))
            assert report.rows == 88
            assert drill(chosen, repository=repository, server=server).ok


class Counting(QuietHandler):
    """Passes everything on to a server, and notes how many queries were under way at once at most."""

    upstream = ""
    lock = threading.Lock()
    running = most = 0

    def answer(self) -> None:
        """The server's own answer."""
        kind = type(self)
        body = self.body()
        counted = self.path.startswith("/query")
        with kind.lock:
            kind.running += counted
            kind.most = max(kind.most, kind.running)
        headers = {key: value for key, value in self.headers.items() if key in ("Accept", "Content-Type")}
        request = urllib.request.Request(kind.upstream + self.path, body or None, headers, method=self.command)
        try:
            with urllib.request.urlopen(request) as reply:
                status, found, content = reply.status, reply.headers, reply.read()
        except urllib.error.HTTPError as refusal:
            status, found, content = refusal.code, refusal.headers, refusal.read()
        with kind.lock:
            kind.running -= counted
        self.send_response_only(status)
        for key in ("Content-Type", "Date", "X-Influxdb-Version", "X-Influxdb-Build"):
            if found.get(key):
                self.send_header(key, found[key])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if content:
            self.wfile.write(content)


@pytest.mark.parametrize("by_shards", [False, True])
def test_a_concurrency_of_one_is_one_query_at_a_time(influx1: RunningServer, by_shards: bool) -> None:
    """Listings and counts among them: a server that allows one query refuses none."""
    database = fill(influx1, 3)
    influx1.wait_until_cold()
    for concurrency, most in ((1, 1), (3, 3)):
        handler = type("Counted", (Counting,), {"upstream": influx1.url, "running": 0, "most": 0})
        with listening(handler) as url:
            through = RunningServer(url=url, generation=1)
            address = influx1.backup_address if by_shards else None
            with opened(through, snapshot_address=address) as server:
                repository = memory_repository()
                result = back_up(repository, server, plan(database, concurrency=concurrency), MONTH)
        assert result.rows == 18
        assert 1 <= handler.most <= most
