"""A server or proxy that sends a byte now and then holds nobody up for ever, and is told as what it is."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import pytest

from influxdb_backup.archive.repository import Repository
from influxdb_backup.errors import IncompleteReadError, ServerUnavailableError
from influxdb_backup.influx.protocol import WriteOptions
from tests.influx_write.support import batch_of, field, tag
from tests.jobs.support import DAY, SECOND, back_up, lines, new_database, opened, plan
from tests.servers import RunningServer
from tests.wire import trickling

ROWS = 3000


def fill(running: RunningServer) -> str:
    """A database of one table whose answer is larger than what passes at once."""
    database = new_database(running)
    running.write(lines((f"cpu,n=a{n % 7}", f"v={n}", DAY.start + n * SECOND) for n in range(ROWS)), database)
    return database


def place_of(running: RunningServer) -> str:
    """Host and port."""
    return urlsplit(running.url).netloc


def test_an_answer_that_trickles_ends_and_says_so(any_influx: RunningServer, repository: Repository) -> None:
    """After a few times twice the timeout the export ends, may be tried again, and leaves nothing behind."""
    database = fill(any_influx)
    began = time.monotonic()
    with (
        trickling(place_of(any_influx), b"q=SELECT%20", after=3000, times=1000) as address,
        opened(any_influx, url=f"http://{address}", timeout=1) as server,
        pytest.raises(IncompleteReadError) as caught,
    ):
        back_up(repository, server, plan(database, reader="query"))
    assert (caught.value.kind, caught.value.retryable) == ("slow-reply", True)
    assert "twice the timeout" in caught.value.message
    assert time.monotonic() - began < 30
    assert repository.store.list("data/") == []


def test_a_connection_that_gets_stuck_once_costs_no_backup(
    any_influx: RunningServer, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """What trickled is read again in halves, and every point is there; the log says what was waited for."""
    database = fill(any_influx)
    with (
        caplog.at_level("INFO"),
        trickling(place_of(any_influx), b"q=SELECT%20", after=3000, times=1) as address,
        opened(any_influx, url=f"http://{address}", timeout=1) as server,
    ):
        result = back_up(repository, server, plan(database, reader="query"))
    assert result.rows == ROWS
    assert "is read in two halves" in caplog.text
    assert "twice the timeout" in caplog.text


@pytest.mark.usefixtures("compiled")
def test_a_copy_of_a_shard_that_trickles_is_left_for_queries(
    influx1: RunningServer, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """The backup port of 1.x: the points come by queries, and the log says why."""
    database = fill(influx1)
    influx1.wait_until_cold()
    with (
        trickling(str(influx1.backup_address), b'"ShardID"', after=600, times=1000) as address,
        opened(influx1, snapshot_address=address, timeout=2) as server,
    ):
        result = back_up(repository, server, plan(database))
    assert result.rows == ROWS
    assert "twice the timeout" in caplog.text


@pytest.mark.usefixtures("compiled")
def test_a_copy_of_a_shard_of_2x_that_trickles_is_left_for_queries(
    influx2: RunningServer, repository: Repository, caplog: pytest.LogCaptureFixture
) -> None:
    """The backup API of 2.x likewise."""
    database = fill(influx2)
    influx2.wait_until_cold()
    with (
        trickling(place_of(influx2), b"/api/v2/backup/shards/", after=600, times=1000) as address,
        opened(influx2, url=f"http://{address}", timeout=2) as server,
    ):
        result = back_up(repository, server, plan(database))
    assert result.rows == ROWS
    assert "twice the timeout" in caplog.text


def test_a_server_that_answers_no_write_is_told_while_it_is_waited_for(
    any_influx: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A write that hangs ends in time, may be tried again, and the log says before what waits for what."""
    database = new_database(any_influx)
    rows = [(DAY.start + n, {"t": "a"}, {"v": n / 4}) for n in range(2000)]
    with (
        trickling(place_of(any_influx), b"/write?", after=0, times=1000, pause=60) as address,
        opened(any_influx, url=f"http://{address}", timeout=1) as server,
    ):
        began = time.monotonic()
        with pytest.raises(ServerUnavailableError) as caught:  # noqa: SIM117
            with server.writer(database, "autogen", WriteOptions(connections=1, retry_seconds=4)) as writer:
                writer.write("m", batch_of([tag("t"), field("v")], rows))
    assert caught.value.retryable
    assert time.monotonic() - began < 15
    assert "tests does not take a batch since" in caplog.text
    assert "tests did not begin to reply within 1 s. Trying again for" in caplog.text
