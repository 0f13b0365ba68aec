"""Clocks that are wrong: named before anything is read, and never what seals a window."""

from __future__ import annotations

import http.server
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate

import pytest

from influxdb_backup.archive.documents import to_bytes
from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import IntegrityError, SourceError
from influxdb_backup.influx.connection import connect
from influxdb_backup.influx.protocol import Server, ServerSettings
from influxdb_backup.jobs.recheck import recheck
from influxdb_backup.jobs.restore_request import RestoreRequest, decide_reads
from influxdb_backup.model import MAX_SEQUENCE
from tests.jobs.sources import fill
from tests.jobs.support import DAY, DAY_NS, HOUR, MINUTE, SECOND, back_up, manifest_of, new_database, plan, window
from tests.servers import RunningServer


@contextmanager
def with_clock(running: RunningServer, ahead: float) -> Iterator[Server]:
    """The server behind a proxy that sets the Date of every reply so many seconds ahead."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Passes it on."""
            self._pass_on(None)

        def do_POST(self) -> None:
            """Passes it on."""
            self._pass_on(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

        do_HEAD = do_GET  # noqa: N815

        def _pass_on(self, body: bytes | None) -> None:
            headers = {name: value for name, value in self.headers.items() if name not in {"Host", "Connection"}}
            request = urllib.request.Request(running.url + self.path, body, headers, method=self.command)
            try:
                reply = urllib.request.urlopen(request)
            except urllib.error.HTTPError as error:
                reply = error
            with reply:
                data = reply.read()
            self.send_response_only(reply.status or 500)
            for name, value in reply.headers.items():
                if name not in {"Date", "Transfer-Encoding", "Content-Length", "Connection"}:
                    self.send_header(name, value)
            self.send_header("Date", formatdate(time.time() + ahead, usegmt=True))
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=proxy.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{proxy.server_port}"
    server = connect(
        ServerSettings(url=url, token=running.token, organization=running.organization, name="wrong", timeout=30)
    )
    try:
        yield server
    finally:
        server.close()
        proxy.shutdown()
        thread.join()
        proxy.server_close()


@pytest.mark.parametrize("ahead", [-2 * 86400, -600, 600, 400 * 86400])
def test_clock_of_a_server_that_is_wrong_is_an_error_that_names_the_clocks(
    any_influx: RunningServer, repository: Repository, ahead: float
) -> None:
    """Nothing is read and nothing committed; accepted, it goes on and the manifest holds all three clocks."""
    database = new_database(any_influx)
    fill(any_influx, database)
    with with_clock(any_influx, ahead) as wrong:
        with pytest.raises(SourceError, match=r"wrong says .*this machine .* and file://") as caught:
            back_up(repository, wrong, plan(database))
        assert caught.value.kind == "clock-skew"
        assert not repository.ref_names("telemetry")
        result = back_up(repository, wrong, plan(database), accept_clock=True)
    clocks = manifest_of(repository, result.ref).evidence.clocks
    assert clocks is not None
    assert abs(clocks.server - clocks.worker - ahead * SECOND) < MINUTE
    assert abs(clocks.store - clocks.worker) < MINUTE
    assert [key for key, _ in repository.store.list("preflight/")] == []


@pytest.mark.parametrize("ahead", [-200, 200])
def test_clock_that_differs_by_less_than_minutes_is_no_error(
    influx1: RunningServer, repository: Repository, ahead: float
) -> None:
    """Clocks of one network are never equal; nothing is recorded of it."""
    database = new_database(influx1)
    fill(influx1, database)
    with with_clock(influx1, ahead) as server:
        result = back_up(repository, server, plan(database))
    assert manifest_of(repository, result.ref).evidence.clocks is None


def test_clock_of_the_worker_that_alone_is_wrong_is_told(
    influx1: RunningServer, server1: Server, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """Where server and store agree, the backup is made, and the log says whose clock to set right."""
    database = new_database(influx1)
    fill(influx1, database)
    with caplog.at_level(logging.WARNING):
        assert back_up(repository, server1, plan(database), now=time.time_ns() + DAY_NS).created
    assert "clock of this machine" in caplog.text


def test_clock_that_was_once_ahead_seals_no_window(
    any_influx: RunningServer, any_server: Server, repository: Repository
) -> None:
    """After the server's clock is right again, late points are backed up, restored and no longer stale."""
    database = new_database(any_influx)
    fill(any_influx, database)
    with with_clock(any_influx, 400 * 86400) as ahead:
        back_up(repository, ahead, plan(database), accept_clock=True)
        later = window(DAY.end, DAY.end + DAY_NS)
        back_up(repository, ahead, plan(database), later, accept_clock=True)
    any_influx.write(f"cpu,host=late v=1 {DAY.start}", database)
    assert back_up(repository, any_server, plan(database)).revision == 1
    reads = decide_reads(RestoreRequest(plan="telemetry", window=DAY), repository, None)
    assert reads.rows == 11
    found = recheck(plan(database), repository.refs("telemetry"), repository=repository, server=any_server)
    assert found.windows == ()
    half = window(DAY.start, DAY.start + 12 * HOUR)
    any_influx.write(f"cpu,host=later v=1 {DAY.start}", database)
    back_up(repository, any_server, plan(database), half)
    assert decide_reads(RestoreRequest(plan="telemetry", window=half), repository, None).rows == 12


def test_ref_that_claims_to_be_the_last_for_ever_is_named(
    influx1: RunningServer, server1: Server, repository: Repository
) -> None:
    """A number that no export writes does not lie above all later reads: it is an error with a way out."""
    database = new_database(influx1)
    fill(influx1, database)
    ref = repository.ref(back_up(repository, server1, plan(database)).ref)
    forged = ref.model_copy(update={"revision": 1, "sequence": MAX_SEQUENCE})
    repository.store.create(f"refs/{forged.id}.json", to_bytes(forged))
    with pytest.raises(IntegrityError, match="Move this file out"):
        back_up(repository, server1, plan(database))
    repository.store.delete(f"refs/{forged.id}.json")
    assert not back_up(repository, server1, plan(database)).created
